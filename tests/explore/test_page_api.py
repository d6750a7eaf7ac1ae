"""Tests what the explorer's server answers, and whom, against the index itself."""

from __future__ import annotations

import io
import re
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorer import DIM, HOSTILE, ITEMS, clustered, publish, serving
from starlette.testclient import TestClient

import annidx
from annidx.explore.app import PAGE, make_app
from annidx.explore.library import Library
from annidx.explore.server import serve

TOKEN = "secret-of-this-run"
NAMES = {"item:7": "Take Five", HOSTILE[2]: "<b>bold</b>"}


class Asker:
    """A client that posts JSON below the token."""

    def __init__(self, library: Library) -> None:
        self.client = TestClient(make_app(library, TOKEN), base_url="http://127.0.0.1")

    def __call__(self, name: str, expect: int = 200, **body: Any) -> dict[str, Any]:
        response = self.client.post(f"/{TOKEN}/api/{name}", json=body)
        assert response.status_code == expect, response.text
        return response.json()


@pytest.fixture(scope="module")
def ask(text_file: Path) -> Iterator[Asker]:
    with annidx.load(text_file, follow=True) as index:
        yield Asker(Library(index, NAMES))


@pytest.fixture(scope="module")
def index(text_file: Path) -> annidx.Index:
    return annidx.load(text_file)


# ---- who is answered ----


@pytest.mark.parametrize(
    "path", ["/", "/page/style.css", "/api/about", "/wrong/", "/wrong/api/about"]
)
def test_without_the_token_nothing_is_found(ask: Asker, path: str) -> None:
    assert ask.client.get(path).status_code == 404
    assert ask.client.post(path, json={}).status_code in (404, 405)


def test_another_host_is_refused(ask: Asker) -> None:
    evil = ask.client.post(f"/{TOKEN}/api/about", headers={"host": "evil.example:80"})
    assert evil.status_code == 400


def test_every_answer_keeps_others_out(ask: Asker) -> None:
    for response in (ask.client.get(f"/{TOKEN}/"), ask.client.post(f"/{TOKEN}/api/about")):
        policy = response.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in response.headers


def test_the_page_asks_no_other_machine(ask: Asker) -> None:
    page = ask.client.get(f"/{TOKEN}/").text
    for target in re.findall(r'(?:src|href)="([^"#]+)"', page):
        assert ask.client.get(f"/{TOKEN}/{target}").status_code == 200, target
    for path in PAGE.rglob("*.*"):
        if path.parent.name != "vendor" and path.suffix in (".js", ".css", ".html"):
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://|//[a-z]+\.[a-z]", text), path.name
            assert "innerHTML" not in text, path.name


def test_each_vendored_script_has_its_licence() -> None:
    licences = (PAGE / "vendor" / "LICENSES.txt").read_text(encoding="utf-8")
    scripts = sorted(path.name for path in (PAGE / "vendor").glob("*.js"))
    for name in scripts:
        package, version = re.search(rf"{re.escape(name)}: ([\w-]+) ([\d.]+),", licences).groups()
        opening = (PAGE / "vendor" / name).read_text(encoding="utf-8")[:200]
        assert package in opening
        assert f"v{version}" in opening
        assert f"page/vendor/{name}" in (PAGE / "index.html").read_text(encoding="utf-8")


def test_paths_out_of_the_page_are_not_found(ask: Asker) -> None:
    for path in ("page/../app.py", "page/%2e%2e/app.py", "page/..%2fapp.py"):
        assert ask.client.get(f"/{TOKEN}/{path}").status_code == 404


# ---- what is answered ----


def test_about_says_what_the_index_says(ask: Asker, index: annidx.Index) -> None:
    about = ask("about")
    info = index.info()
    assert {**about["info"], "path": None} == {**info, "path": None}
    assert about["items"] == ITEMS
    assert about["generation"] == 1
    assert about["identity"] == info["identity"]
    assert 0 <= about["in_memory"] <= 1
    assert about["sets"] == {}
    assert about["start"] in index
    assert ask("status")["in_memory"] is None
    assert 0 <= ask("status", memory=True)["in_memory"] <= 1


@pytest.mark.parametrize("item", [*HOSTILE, "item:7"])
def test_near_equals_query_items(ask: Asker, index: annidx.Index, item: str) -> None:
    answer = ask("near", id=item, k=15, recall=0.9)
    ids, distances = index.query_items(item, k=15, recall=0.9)
    assert answer["item"]["id"] == item
    assert answer["item"]["title"] == NAMES.get(item)
    assert [one["id"] for one in answer["neighbours"]] == ids.tolist()
    np.testing.assert_allclose([one["distance"] for one in answer["neighbours"]], distances)
    assert np.isfinite([one["at"] for one in answer["neighbours"]]).all()


def test_near_by_row_of_the_map(ask: Asker, index: annidx.Index) -> None:
    drawn = ask("map")
    assert drawn["rows"] == list(range(ITEMS))
    assert drawn["labels"][len(HOSTILE) + 7] == "Take Five"
    assert max(map(len, drawn["labels"])) <= 60
    answer = ask("near", row=drawn["rows"][40], generation=drawn["generation"])
    assert answer["item"]["id"] == index.ids[40]
    assert answer["item"]["at"] == pytest.approx([drawn["x"][40], drawn["y"][40]], abs=1e-4)
    ask("near", 409, row=40, generation=drawn["generation"] + 1)
    ask("near", 400, row=ITEMS, generation=drawn["generation"])


def test_search_finds_ids_titles_and_the_hostile(ask: Asker) -> None:
    def found(text: str) -> list[str]:
        return [one["id"] for one in ask("search", text=text)["items"]]

    assert found("item:29")[:2] == ["item:29", "item:290"]
    assert found("take f") == ["item:7"]
    assert found("<B>") == [HOSTILE[2]]
    assert found("<script>") == [HOSTILE[0]]
    assert found("שלום") == [HOSTILE[2]]
    assert found(HOSTILE[4]) == [HOSTILE[4]]
    assert found("no such") == []
    assert found(HOSTILE[5]) == [HOSTILE[5]]
    assert ask("search", text="x")["searched"] == ITEMS


def test_radio_leaves_unknown_seeds_aside(ask: Asker) -> None:
    answer = ask("radio", seeds=["gone", "item:3"], dislikes=["gone too"], diversity=0.4, length=9)
    assert [one["id"] for one in answer["seeds"]] == ["item:3"]
    assert len({one["id"] for one in answer["playlist"]} - {"item:3"}) == 9
    ask("radio", 400, seeds=["gone"], diversity=0.4)


def test_measure_reaches_what_it_aims_at(ask: Asker) -> None:
    assert ask("measure", target=1.0)["recall"] == 1.0
    answer = ask("measure", target=0.9)
    assert answer["target"] == 0.9
    assert answer["microseconds"] > 0
    assert answer["exact_microseconds"] > 0


@pytest.mark.parametrize(
    ("name", "body", "code", "said"),
    [
        ("near", {"id": "gone"}, 404, "no such item"),
        ("near", {"id": 7}, 400, "id: expected text, found int"),
        ("near", {"id": "item:1", "k": 0}, 400, "k: expected a whole number from 1 to 200"),
        ("near", {"id": "item:1", "k": True}, 400, "k: expected a whole number"),
        ("near", {"id": "item:1", "recall": 0}, 400, "recall: expected a number from 0.01 to 1"),
        ("near", {"id": "item:1", "only": ["x"]}, 400, "sets: expected one of"),
        ("near", {"id": "item:1", "only": "x"}, 400, "only: expected a list of texts"),
        ("near", {}, 400, "row: expected"),
        ("search", {}, 400, "text: expected text, found nothing"),
        ("map", {"map": "globe"}, 400, "map: expected one of"),
        ("radio", {"seeds": ["item:1"]}, 400, "diversity: expected a number from 0 to 1"),
        ("radio", {"seeds": ["item:1"], "diversity": float("inf")}, 400, "request: expected JSON"),
        ("measure", {"target": 2}, 400, "target: expected a number from 0.01 to 1"),
    ],
)
def test_wrong_questions_are_told_what_is_expected(
    ask: Asker, name: str, body: dict[str, Any], code: int, said: str
) -> None:
    if "inf" in str(body):
        response = ask.client.post(f"/{TOKEN}/api/{name}", content=b'{"diversity": Infinity')
        assert response.status_code == code
        assert said in response.json()["error"]
        return
    assert said in ask(name, code, **body)["error"]


def test_bodies_that_are_no_object_or_too_long(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"[]", b"{", b"\xff", b"[" * 100_000):
        assert ask.client.post(f"/{TOKEN}/api/search", content=content).status_code == 400
    monkeypatch.setattr("annidx.explore.app._MOST_BODY_BYTES", 100)
    assert "at most 100 bytes" in ask("search", 400, text="x" * 200)["error"]


def test_integer_ids_beyond_what_javascript_counts(tmp_path: Path) -> None:
    ids = [2**63 - 1, -(2**63), 2**53 + 1, 2**53, *range(200)]
    made = annidx.Index(DIM, "euclidean")
    made.add_items(clustered(len(ids)), ids=ids)
    made.build(n_jobs=1)
    made.save(tmp_path / "ints.annidx")
    with annidx.load(tmp_path / "ints.annidx", follow=True) as index:
        ask = Asker(Library(index, {"9007199254740993": "odd"}))
        assert ask("near", id=str(2**53 + 1))["item"] | {"at": 0} == {
            "id": "9007199254740993",
            "title": "odd",
            "at": 0,
        }
        assert [one["id"] for one in ask("search", text="922337")["items"]] == [
            str(2**63 - 1),
            str(-(2**63)),
        ]
        for wrong in ("7.5", "word", "", str(2**70)):
            ask("near", 404, id=wrong)


def test_filters_by_named_sets(sets_file: Path) -> None:
    with annidx.load(sets_file, follow=True) as followed:
        filtered = Asker(Library(followed, {}))
        index = followed.current
        even, low = index.sets["even"], index.sets["low <b>"]
        assert filtered("about")["sets"] == {"even": ITEMS // 2, "low <b>": 1_000}
        for only, without, wanted in (
            (["even"], [], even),
            (["even", "low <b>"], [], even & low),
            ([], ["even"], ~even),
            (["low <b>"], ["even"], low - even),
        ):
            answer = filtered("near", id="item:50", k=30, only=only, without=without)
            truth = index.query_items("item:50", k=30, allow=wanted)[0].tolist()
            assert [one["id"] for one in answer["neighbours"]] == truth
        heard = filtered("radio", seeds=["item:50"], diversity=0.3, only=["even"])["playlist"]
        assert heard
        assert all(one["id"] in even for one in heard)


def test_a_file_that_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "live.annidx"
    publish(path, 500)
    with annidx.load(path, follow=True) as index:
        ask = Asker(Library(index, {}))
        first = ask("map")
        publish(path, 700, seed=6)
        status = ask("status")
        assert (status["generation"], status["items"], status["refused"]) == (2, 700, None)
        ask("near", 409, row=3, generation=first["generation"])
        assert len(ask("map")["rows"]) == 700
        assert ask("about")["info"]["metadata"] == {"model": "seed 6"}
        other = annidx.Index(DIM + 1, "angular")
        other.add_items(clustered(50, DIM + 1), ids=[str(i) for i in range(50)])
        other.build()
        other.save(path)
        status = ask("status")
        assert (status["generation"], status["items"]) == (2, 700)
        assert "another dim" in status["refused"]
        assert ask("near", id="item:3")["generation"] == 2


# ---- the process ----


def test_served_until_ctrl_c(text_file: Path) -> None:
    with serving(str(text_file)) as (address, process):
        with urllib.request.urlopen(address, timeout=20) as response:
            assert b"annidx" in response.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_port_that_is_taken(text_file: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            serve(text_file, port=taken.getsockname()[1], browser=False, out=io.StringIO())


def test_without_the_extra_it_says_so(text_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r"annidx\[explore\]"):
        serve(text_file, out=io.StringIO())
