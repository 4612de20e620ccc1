import os
import threading
from pathlib import Path

import pytest

from ui import vault as vaults
from ui.vault import Conflict, Damaged, Full, Vault

ANN, BOB = "sk-ann-9f8e7d6c5b4a39281706f5e4d3c2b1a0", "sk-bob-0a1b2c3d4e5f60718293a4b5c6d7e8f9"
TEXT = b'{"id": "c0ffee", "title": "The hidden door", "messages": []}'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "sync"


def stored(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_what_is_written_is_read_again_by_every_vault_of_the_key(root: Path) -> None:
    name, etag = Vault(ANN, root).write("c0ffee", TEXT, None)
    other = Vault(ANN, root)
    assert other.etags() == {name: etag} and other.read(name) == TEXT
    again, newer = other.write("c0ffee", b"{}", etag)
    assert again == name and newer != etag and Vault(ANN, root).read(name) == b"{}"


def test_the_disk_has_no_plaintext_no_key_and_no_id(root: Path) -> None:
    mine = Vault(ANN, root)
    mine.write("c0ffee", TEXT, None)
    (file,) = stored(root)
    content = file.read_bytes()
    assert not any(word in content for word in (b"hidden", b"c0ffee", b"title", ANN.encode()))
    assert not any(word in str(file.relative_to(root)) for word in ("c0ffee", "ann", ANN))
    assert ANN not in repr(mine) and ANN not in repr(vars(mine))
    assert file.stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in (file.parent, root)} == {0o700}


def test_another_key_sees_nothing_and_cannot_decrypt(root: Path) -> None:
    ann, bob = Vault(ANN, root), Vault(BOB, root)
    name, _ = ann.write("c0ffee", TEXT, None)
    assert bob.etags() == {} and not bob.used
    with pytest.raises(FileNotFoundError):
        bob.read(name)
    bob.write("c0ffee", b"{}", None)
    (root / ann.id / name).replace(root / bob.id / name)
    with pytest.raises(Damaged):
        bob.read(name)


@pytest.mark.parametrize("place", [0, 11, 12, 40, -1])
def test_a_changed_byte_is_noticed(root: Path, place: int) -> None:
    mine = Vault(ANN, root)
    name, _ = mine.write("c0ffee", TEXT, None)
    content = bytearray((root / mine.id / name).read_bytes())
    content[place] ^= 1
    (root / mine.id / name).write_bytes(content)
    with pytest.raises(Damaged):
        mine.read(name)


@pytest.mark.parametrize("length", [0, 5, 12, 20, 50])
def test_a_file_that_was_cut_off_is_noticed_and_can_be_replaced(root: Path, length: int) -> None:
    mine = Vault(ANN, root)
    name, _ = mine.write("c0ffee", TEXT, None)
    os.truncate(root / mine.id / name, length)
    with pytest.raises(Damaged):
        mine.read(name)
    mine.write("c0ffee", TEXT, mine.etags()[name])
    assert mine.read(name) == TEXT


def test_a_file_under_the_name_of_another_is_noticed(root: Path) -> None:
    mine = Vault(ANN, root)
    one, _ = mine.write("c0ffee", TEXT, None)
    other, _ = mine.write("decaf", b"{}", None)
    (root / mine.id / one).replace(root / mine.id / other)
    with pytest.raises(Damaged):
        mine.read(other)


@pytest.mark.parametrize("name", ["", "..", "../x", "x" * 64, "c0ffee.new", "A" * 64])
def test_only_its_files_have_names(root: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        Vault(ANN, root).read(name)


def test_only_the_version_that_was_seen_is_replaced(root: Path) -> None:
    mine = Vault(ANN, root)
    with pytest.raises(Conflict):
        mine.write("c0ffee", TEXT, "0" * 24)
    name, etag = mine.write("c0ffee", TEXT, None)
    for seen in (None, "0" * 24):
        with pytest.raises(Conflict):
            mine.write("c0ffee", b"{}", seen)
    assert mine.read(name) == TEXT and mine.etags() == {name: etag}


def test_of_sessions_that_write_at_once_one_is_first(root: Path) -> None:
    name, etag = Vault(ANN, root).write("c0ffee", TEXT, None)
    won, together = [], threading.Barrier(8)

    def write(number: int) -> None:
        mine = Vault(ANN, root)
        together.wait()
        mine.write(f"f{number}", TEXT, None)
        try:
            mine.write("c0ffee", b"%d" % number, etag)
        except Conflict:
            return
        won.append(b"%d" % number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [Vault(ANN, root).read(name)] == won
    assert len(Vault(ANN, root).etags()) == 9


def test_a_person_has_a_limit_which_deleting_meets(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vaults, "LIMIT", 1000)
    mine = Vault(ANN, root)
    name, etag = mine.write("c0ffee", b"x" * 900, None)
    with pytest.raises(Full):
        mine.write("decaf", b"x" * 100, None)
    with pytest.raises(Full):
        mine.write("c0ffee", b"x" * 1000, etag)
    assert mine.read(name) == b"x" * 900
    Vault(BOB, root).write("c0ffee", b"x" * 900, None)  # apart from others
    monkeypatch.setattr(vaults, "LIMIT", 10)
    mine.write("c0ffee", b'{"deleted": 1}', etag)


def test_a_disk_that_is_full_leaves_what_was_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Vault(ANN, root)
    name, etag = mine.write("c0ffee", TEXT, None)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        mine.write("c0ffee", b"{}", etag)
    assert mine.read(name) == TEXT and len(stored(root)) == 1


def test_nothing_is_created_before_something_is_written(root: Path) -> None:
    mine = Vault(ANN, root)
    assert mine.writable and not mine.used and mine.etags() == {}
    mine.clear()
    assert not root.exists()


def test_what_is_cleared_is_gone_and_only_that(root: Path) -> None:
    for key in (ANN, BOB):
        Vault(key, root).write("c0ffee", TEXT, None)
    Vault(ANN, root).clear()
    assert not Vault(ANN, root).used and len(stored(root)) == 1
    Vault(ANN, root).write("c0ffee", TEXT, None)


def test_a_place_that_cannot_be_written_to_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda place, _: place != root.parents[1])
    assert not Vault(ANN, root).writable
