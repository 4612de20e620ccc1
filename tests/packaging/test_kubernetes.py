"""deploy/kubernetes as kustomize renders it, held against the API's schemas. No cluster has run it."""

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from router.litellm.config import read_config
from router.models import read_models
from router.settings import read_settings
from services.stack.environments import BY_NAME, ROOT
from ui.settings import load as load_ui_settings

FOLDER = ROOT / "deploy" / "kubernetes"
LAYERS = ("base", "overlays/autoscaling", "overlays/cpu", "overlays/tensor-parallel")
VERSIONS = ("1.30", "1.37")  # the oldest and the newest that these are written for
KEY = "k7Zr3kX9vT2mB6nL8wY4dF1hJ5cG0sPa"
Manifest = dict[str, Any]


@functools.cache
def rendered(layer: str) -> list[Manifest]:
    """What `kubectl apply` would get."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which has kustomize, is not installed")
    command = ["kubectl", "kustomize", "--load-restrictor", "LoadRestrictionsNone", str(FOLDER / layer)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return list(yaml.safe_load_all(answer.stdout))


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name)
    return found


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Name and specification of every pod."""
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("base/[!k]*.yaml")), ids=lambda path: path.name)
def test_every_manifest_follows_the_schemas(path: Path) -> None:
    """Without kustomize, too."""
    for manifest in yaml.safe_load_all(path.read_text()):
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("layer", LAYERS)
def test_what_is_applied_follows_the_schemas(layer: str) -> None:
    manifests = rendered(layer)
    assert {name for name, _ in pods(manifests)} == {"coder", "general", "router", "ui", "redis"}
    for manifest in manifests:
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "duoserve"


def test_a_fault_would_be_found() -> None:
    (service, *_) = yaml.safe_load_all((FOLDER / "base" / "router.yaml").read_text())
    service["spec"]["port"] = service["spec"].pop("ports")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("layer", LAYERS)
def test_services_policies_and_budgets_select_pods_that_exist(layer: str) -> None:
    manifests = rendered(layer)
    labels = [
        m["spec"]["template"]["metadata"]["labels"]
        for m in manifests
        if m["kind"] in ("Deployment", "StatefulSet")
    ]
    selectors = [m["spec"]["selector"] for m in manifests if m["kind"] == "Service"]
    selectors += [m["spec"]["podSelector"]["matchLabels"] for m in manifests if m["kind"] == "NetworkPolicy"]
    selectors += [
        m["spec"]["selector"]["matchLabels"] for m in manifests if m["kind"] == "PodDisruptionBudget"
    ]
    assert len(selectors) == 8
    for selector in selectors:
        assert any(selector.items() <= each.items() for each in labels), selector


@pytest.mark.parametrize("layer", LAYERS)
def test_pods_are_confined(layer: str) -> None:
    for name, pod in pods(rendered(layer)):
        (container,) = pod["containers"]
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"], name
        assert rights["capabilities"]["drop"] == ["ALL"]
        assert pod["automountServiceAccountToken"] is False
        assert container["resources"]["limits"]["memory"]
        assert name == "redis" or container["startupProbe"]


@pytest.mark.parametrize("layer", LAYERS)
def test_the_router_accepts_its_settings(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = rendered(layer)
    (router,) = (pod for name, pod in pods(manifests) if name == "router")
    (container,) = router["containers"]
    settings = container["envFrom"][0]["configMapRef"]["name"]
    variables = dict(one(manifests, "ConfigMap", settings)["data"])
    variables |= {v["name"]: v["value"] for v in container["env"] if "value" in v}
    for name, value in (variables | {"LITELLM_MASTER_KEY": KEY}).items():
        monkeypatch.setenv(name, value)
    read = read_settings()
    models = read_models(read, read_config(ROOT / read.litellm_config), [])
    assert set(models) == {"coder", "general"}
    # The files that it looks for are those that are mounted.
    sources = router["volumes"][0]["projected"]["sources"]
    profile = one(manifests, "ConfigMap", sources[1]["configMap"]["name"])["data"]
    for item in sources[1]["configMap"]["items"]:
        assert item["path"] == f"engines/{read.profile}/{item['key']}"
        assert profile[item["key"]] == (ROOT / "config" / item["path"]).read_text()
    # So are the engines', and each engine has the name under which the router looks for it.
    urls = variables["CODER_URL"].split(",") + variables["GENERAL_URL"].split(",")
    for name in ("coder", "general"):
        engine = one(manifests, "StatefulSet", name)
        assert f"http://{name}-0.{engine['spec']['serviceName']}:8000" in urls
        mounts = {
            m["name"]: m["mountPath"]
            for m in engine["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        }
        assert mounts["profile"] == f"/app/config/engines/{read.profile}"


@pytest.mark.parametrize("layer", LAYERS)
def test_only_the_router_gets_the_keys_of_providers(layer: str) -> None:
    reads = {name for name, pod in pods(rendered(layer)) if "providers" in str(pod)}
    assert reads == {"router"}
    (router,) = (pod["containers"][0] for name, pod in pods(rendered(layer)) if name == "router")
    assert {"secretRef": {"name": "providers", "optional": True}} in router["envFrom"]


@pytest.mark.parametrize("layer", LAYERS)
def test_conversations_that_people_sync_outlive_the_pod(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the app writes is on a claim that its user may write to, and that the next pod can mount."""
    manifests = rendered(layer)
    deployment = one(manifests, "Deployment", "ui")["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    (settings,) = (source["configMapRef"]["name"] for source in container["envFrom"])
    variables = dict(one(manifests, "ConfigMap", settings)["data"])
    variables |= {v["name"]: v["value"] for v in container["env"] if "value" in v}
    monkeypatch.delenv("DUOSERVE_HOME", raising=False)
    for name, value in (variables | {"LITELLM_MASTER_KEY": KEY}).items():
        monkeypatch.setenv(name, value)
    written = Path("/app") / load_ui_settings().vaults.relative_to(ROOT)
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    (claimed,) = (
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if volume["name"] == mounts[str(written)]
    )
    claim = one(manifests, "PersistentVolumeClaim", claimed)["spec"]
    assert claim["accessModes"] == ["ReadWriteOnce"] and claim["resources"]["requests"]["storage"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    image = (ROOT / "ui" / "Dockerfile").read_text()
    assert "\nWORKDIR /app\n" in image and f"\nUSER 10001:{pod['securityContext']['fsGroup']}\n" in image
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_engines_are_the_release_that_is_locked_and_have_gpus() -> None:
    for layer, gpus in (("base", "1"), ("overlays/tensor-parallel", "2")):
        (container,) = one(rendered(layer), "StatefulSet", "coder")["spec"]["template"]["spec"]["containers"]
        release = container["image"].partition("@")[0].rpartition(":v")[2]
        assert f"\nvllm=={release} " in BY_NAME["engine-cuda"].lock.read_text()
        assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus
        assert (container["args"][-2:] == ["--tensor-parallel-size", "2"]) == (gpus == "2")
    (container,) = one(rendered("overlays/cpu"), "StatefulSet", "coder")["spec"]["template"]["spec"][
        "containers"
    ]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]


def test_the_autoscaler_and_the_router_know_the_same_engines_and_metrics() -> None:
    manifests = rendered("overlays/autoscaling")
    scaler = one(manifests, "HorizontalPodAutoscaler", "coder")["spec"]
    (router,) = one(manifests, "Deployment", "router")["spec"]["template"]["spec"]["containers"]
    (urls,) = (v["value"].split(",") for v in router["env"] if v["name"] == "CODER_URL")
    assert urls == [f"http://coder-{number}.coder:8000" for number in range(scaler["maxReplicas"])]
    assert "replicas" not in one(manifests, "StatefulSet", "coder")["spec"]
    rules = yaml.safe_load((FOLDER / "overlays/autoscaling/adapter-rules.yaml").read_text())["rules"]
    adapted = {rule["name"]["as"] for rule in rules["external"]}
    assert {m["external"]["metric"]["name"] for m in scaler["metrics"]} == adapted
    metrics = (ROOT / "router" / "metrics.py").read_text()
    assert all(f'"{name}"' in metrics for name in adapted)
