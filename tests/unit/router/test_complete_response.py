import json

from router.layers.complete_response import completed

ADDED = {"error": None, "store": False, "safety_identifier": None, "prompt_cache_key": None}


def event(name: str, **content: object) -> bytes:
    return f"event: {name}\ndata: ".encode() + json.dumps(content).encode() + b"\n\n"


def test_each_response_object_gets_the_missing_fields() -> None:
    response = {"model": "coder", "object": "response", "tools": [{"object": "response", "x": 1}]}
    part = event("response.created", response=response) + event("response.completed", response=response)
    begun, ended = (
        json.loads(line[6:])["response"]
        for line in completed(part).splitlines()
        if line.startswith(b"data: ")
    )
    assert begun == response | ADDED | {"completed_at": None}
    assert ended == response | ADDED | {"completed_at": ended["completed_at"]}
    assert isinstance(ended["completed_at"], int)
    whole = json.loads(completed(json.dumps(response).encode()))
    assert isinstance(whole["completed_at"], int)


def test_text_that_looks_like_it_stays() -> None:
    part = event("response.output_text.delta", delta='"object": "response",')
    assert completed(part) == part
