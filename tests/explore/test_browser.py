"""Tests the explorer's page in a real browser: Debian's Chromium, driven by Playwright.

Skipped where either is missing. `ANNIDX_SCREENSHOTS` names a folder that keeps the screenshots.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorer import DIM, HOSTILE, ITEMS, clustered, publish, serving

import annidx

playwright = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()
SIZES = {"wide": (1440, 900), "tablet": (820, 1180), "phone": (390, 844)}
PATIENCE_MS = 20_000

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as player:
        launched = player.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open pages that may ask nobody but their server, and whose errors fail the test."""
    contexts = []
    troubles: list[str] = []

    def open_one(
        address: str, size: str = "wide", scheme: str = "light", errors: bool = True, **more: Any
    ) -> Page:
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
            **more,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        origin = re.match(r"http://[^/]+/", address)[0]

        def asked(request: Any) -> None:
            if not request.url.startswith((origin, "data:")):
                troubles.append(f"asked {request.url}")

        page.on("request", asked)
        if errors:
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on(
                "console",
                lambda said: troubles.append(said.text) if said.type == "error" else None,
            )
        page.goto(address)
        expect(page.locator("body")).to_have_attribute("data-ready", "yes")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture(scope="module")
def address(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    names = tmp_path_factory.mktemp("names") / "names.tsv"
    names.write_text("item:7\tTake <b>Five</b>\n", encoding="utf-8")
    with serving(str(text_file), "--names", str(names)) as (where, _):
        yield where


@pytest.fixture(scope="module")
def index(text_file: Path) -> annidx.Index:
    return annidx.load(text_file)


def search(page: Page, text: str) -> None:
    """Type into the search field and take the first item."""
    page.fill("#search-text", text)
    expect(page.locator("#search-list li").first).to_be_visible()
    page.keyboard.press("Enter")


def near(page: Page) -> list[str]:
    """List the neighbours that are shown."""
    return page.locator("#near-list .clip").all_text_contents()


def title(page: Page) -> Any:
    return expect(page.locator("#item-title"))


def drawn_colours(page: Page) -> int:
    """Count the colours that are on the canvas."""
    return int(
        page.evaluate(
            """() => {
            const canvas = document.getElementById("canvas");
            const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(all.data.buffer)).size;
        }"""
        )
    )


# ---- search and walk ----


def test_search_by_keyboard_with_completion(open_page: OpenPage, address: str) -> None:
    page = open_page(address)
    page.keyboard.press("/")
    expect(page.locator("#search-text")).to_be_focused()
    page.keyboard.type("item:12")
    field, options = page.locator("#search-text"), page.locator("#search-list [role=option]")
    expect(options.first).to_have_text("item:12")
    expect(field).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    expect(field).to_have_attribute("aria-activedescendant", "search-list-1")
    second = options.nth(1).text_content()
    page.keyboard.press("Enter")
    title(page).to_have_text(second)
    expect(field).to_have_attribute("aria-expanded", "false")
    page.fill("#search-text", "take <b>f")
    expect(options.first).to_contain_text("Take <b>Five</b>")
    options.first.click()
    title(page).to_have_text("Take <b>Five</b>")
    expect(page.locator("#item-id")).to_have_text("id item:7")
    page.fill("#search-text", "nothing like it")
    expect(page.locator("#search-list")).to_have_text("Nothing found")
    page.keyboard.press("Escape")
    expect(page.locator("#search-list")).to_be_hidden()


def test_walk_back_and_forward(open_page: OpenPage, address: str, index: annidx.Index) -> None:
    page = open_page(address + "#item=item%3A50")
    title(page).to_have_text("item:50")
    walked = ["item:50"]
    for place in (0, 2):
        ids, distances = index.query_items(walked[-1], k=20)
        assert near(page) == ids.tolist()
        shown = page.locator("#near-list .distance").all_text_contents()
        found = [float(text.removeprefix("distance ")) for text in shown]
        np.testing.assert_allclose(found, distances, rtol=1e-3)
        page.locator("#near-list button.open").nth(place).click()
        walked.append(ids[place])
        title(page).to_have_text(walked[-1])
    page.click("#back")
    title(page).to_have_text(walked[1])
    page.go_back()
    title(page).to_have_text(walked[0])
    expect(page.locator("#back")).to_be_disabled()
    page.click("#forward")
    title(page).to_have_text(walked[1])
    page.select_option("#near-k", "10")
    expect(page.locator("#near-list li")).to_have_count(10)
    page.reload()
    title(page).to_have_text(walked[1])


def test_the_map_is_drawn_and_opens_items(
    open_page: OpenPage, address: str, index: annidx.Index
) -> None:
    page = open_page(address + "#item=item%3A50")
    expect(page.locator("#map-note")).to_have_text(f"{ITEMS:,} items on two principal axes")
    assert drawn_colours(page) > 50
    page.focus("#canvas")
    for key in ("ArrowLeft", "ArrowUp", "+", "ArrowRight"):
        page.keyboard.press(key)
    spoken = page.locator("#map-spoken")
    expect(spoken).not_to_be_empty()
    page.keyboard.press("ArrowDown")
    chosen = spoken.text_content()
    page.keyboard.press("Enter")
    title(page).to_have_text(chosen)
    page.click("#zoom-all")
    page.locator("#canvas").hover(position={"x": 400, "y": 400})
    page.mouse.wheel(0, -400)
    page.click("#surprise")
    expect(page.locator("#near-note")).to_contain_text("20 of 3,000 items")
    before = page.locator("#item-title").text_content()
    box = page.locator("#canvas").bounding_box()
    for step in range(200):  # a spiral from the middle meets a point soon
        angle, reach = 2.4 * step, 9 * step**0.5
        page.mouse.click(
            box["x"] + box["width"] / 2 + reach * np.cos(angle),
            box["y"] + box["height"] / 2 + reach * np.sin(angle),
        )
        if page.locator("#item-title").text_content() != before:
            break
    title(page).not_to_have_text(before)


# ---- radio, recall, file ----


def test_radio(open_page: OpenPage, address: str) -> None:
    page = open_page(address + "#item=item%3A50")
    page.click("#seed")
    playlist = page.locator("#playlist .clip")
    expect(playlist).to_have_count(20)
    page.fill("#seed-text", "item:900")
    expect(page.locator("#seed-matches li").first).to_have_text("item:900")
    page.keyboard.press("Enter")
    expect(page.locator("#seed-list li")).to_have_count(2)
    expect(page.locator("#radio-note")).to_contain_text("20 chosen")
    disliked = playlist.first.text_content()
    page.locator("#playlist button.less").first.click()
    expect(page.locator("#dislike-list li")).to_have_text([re.compile(re.escape(disliked))])
    expect(playlist.first).not_to_have_text(disliked)
    before = playlist.all_text_contents()
    page.locator("#diversity").fill("1")
    expect(page.locator("#diversity-shown")).to_have_text("1")
    expect(playlist.nth(1)).not_to_have_text(before[1])
    now = playlist.all_text_contents()
    assert not {"item:50", "item:900", disliked} & set(now)
    page.click("#play")
    current = page.locator("#playlist [aria-current=true] .clip")
    expect(current).to_have_text(now[0])
    expect(current).to_have_text(now[1])
    page.click("#play")
    page.click("#next")
    expect(current).to_have_text(now[2])
    page.click("#more")
    expect(playlist).to_have_count(40)
    assert len(set(playlist.all_text_contents())) == 40
    page.locator("#seed-list button").first.click()
    expect(page.locator("#seed-list li")).to_have_count(1)


def test_recall_is_measured_and_aimed_at(open_page: OpenPage, address: str) -> None:
    page = open_page(address)
    page.click("#tab-speed")
    page.locator("#target").fill("0.99")
    page.locator("#target").dispatch_event("change")
    expect(page.locator("#speed-note")).to_contain_text("Aimed at 0.99")
    expect(page.locator("#near-note")).to_contain_text("aiming at 0.99")
    page.click("#measure-all")
    rows = page.locator("#speed-table tbody tr")
    expect(rows).to_have_count(7, timeout=60_000)
    cells = [[float(cell) for cell in row.locator("td").all_text_contents()] for row in rows.all()]
    assert [row[0] for row in cells] == sorted(row[0] for row in cells)
    assert all(0 <= row[1] <= 1 and row[2] > 0 for row in cells)
    assert cells[-1][1] >= cells[0][1]
    expect(page.locator("#plot svg circle")).to_have_count(7)


def test_the_file_is_told(open_page: OpenPage, address: str, index: annidx.Index) -> None:
    page = open_page(address)
    page.focus("#tab-near")
    page.keyboard.press("End")
    expect(page.locator("#tab-file")).to_be_focused()
    facts = page.locator("#panel-file")
    for fact in (
        index.info()["identity"],
        "3,000",
        "24 dimensions",
        "angular",
        '"model": "seed 5"',
    ):
        expect(facts).to_contain_text(fact)
    expect(page.locator("#memory-shown")).to_contain_text("%")
    page.click("#theme")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.click("#theme")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", dark)[:3])) < 150
    expect(page.locator("#sets")).to_be_hidden()


def test_filters_by_the_sets_of_the_file(open_page: OpenPage, sets_file: Path) -> None:
    with serving(str(sets_file)) as (where, _), annidx.load(sets_file) as index:
        page = open_page(where + "#item=item%3A50")
        expect(page.locator("#set-list li")).to_have_count(2)
        even, low = index.sets["even"], index.sets["low <b>"]
        page.locator("#set-list li", has_text="even").locator("select").select_option("only")
        wanted = index.query_items("item:50", k=20, allow=even)[0].tolist()
        expect(page.locator("#near-list .clip")).to_have_text(wanted)
        page.locator("#set-list li", has_text="low <b>").locator("select").select_option("without")
        wanted = index.query_items("item:50", k=20, allow=even - low)[0].tolist()
        expect(page.locator("#near-list .clip")).to_have_text(wanted)
        page.click("#seed")
        expect(page.locator("#playlist li")).to_have_count(20)
        assert all(one in even - low for one in page.locator("#playlist .clip").all_text_contents())
        page.close()  # it asks again and again; its server goes


# ---- trouble ----


@pytest.mark.parametrize("item", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_ids_are_only_text(
    open_page: OpenPage, address: str, index: annidx.Index, item: str
) -> None:
    page = open_page(address, "phone")
    search(page, item if item.strip() else "item:1")
    if item.strip():
        expect(page.locator("#near-list li")).to_have_count(20)
        shown = item[:20].split("\n")[0].replace("\u202e", "\u2423").split("\t")[0].strip()
        title(page).to_contain_text(shown)
    neighbour = index.query_items(item, k=1)[0][0]
    search(page, neighbour)
    title(page).to_have_text(neighbour[:200])
    page.click("#seed")
    expect(page.locator("#playlist li")).to_have_count(20)
    assert "taken" not in page.title()
    assert page.locator("#side img, #side script, #map script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_file_replaced_while_one_looks(open_page: OpenPage, tmp_path: Path) -> None:
    path = tmp_path / "live.annidx"
    publish(path, 600)
    with serving(str(path)) as (where, _):
        page = open_page(where + "#item=item%3A50", errors=False)
        page.click("#seed")
        expect(page.locator("#playlist li")).to_have_count(20)
        publish(path, 800, seed=6)
        expect(page.locator("#news")).to_have_text("A new file has taken over: 800 items.")
        expect(page.locator("#file-summary")).to_contain_text("800 items")
        expect(page.locator("#map-note")).to_contain_text("800 items")
        with annidx.load(path) as index:
            wanted = index.query_items("item:50", k=20)[0].tolist()
        page.click("#tab-near")
        expect(page.locator("#near-list .clip")).to_have_text(wanted)
        (tmp_path / "other").write_bytes(b"no index at all")
        os.replace(tmp_path / "other", path)
        expect(page.locator("#news")).to_contain_text("cannot be used")
        search(page, "item:70")
        title(page).to_have_text("item:70")
        path.unlink()
        publish(path, 30, seed=7)
        expect(page.locator("#news")).to_have_text("A new file has taken over: 30 items.")
        expect(page.locator("#near-note")).to_contain_text("holds no such item")


def test_a_server_that_stopped(open_page: OpenPage, text_file: Path) -> None:
    with serving(str(text_file)) as (where, process):
        page = open_page(where, errors=False)
        expect(page.locator("#gone")).to_be_hidden()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        expect(page.locator("#gone")).to_contain_text("The server has stopped")
        assert page.locator("#gone").get_attribute("role") == "alert"


# ---- who looks ----


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_nothing_serious_for_axe(open_page: OpenPage, address: str, size: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(address, size, scheme, bypass_csp=True)

    def check(what: str) -> None:
        found = axe.run(page).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert [(what, one["id"], one["nodes"][0]["html"]) for one in serious] == []

    page.fill("#search-text", "item")
    expect(page.locator("#search-list li").first).to_be_visible()
    check("search")
    page.keyboard.press("Enter")
    check("neighbours")
    page.click("#seed")
    expect(page.locator("#playlist li")).to_have_count(20)
    page.locator("#playlist button.less").first.click()
    expect(page.locator("#dislike-list li")).to_have_count(1)
    page.click("#next")
    check("radio")
    page.click("#tab-speed")
    page.click("#measure")
    expect(page.locator("#speed-table tbody tr")).to_have_count(1)
    check("recall")
    page.click("#tab-file")
    check("file")


@pytest.mark.parametrize(
    ("size", "scheme"), [("wide", "light"), ("tablet", "light"), ("phone", "dark")]
)
def test_screenshots(
    open_page: OpenPage, words_address: str, tmp_path: Path, size: str, scheme: str
) -> None:
    folder = Path(os.environ.get("ANNIDX_SCREENSHOTS", tmp_path))
    page = open_page(words_address, size, scheme)

    def shoot(name: str) -> None:
        path = folder / f"explore-{size}-{name}.png"
        page.screenshot(path=path)
        assert path.stat().st_size > 10_000
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name

    search(page, "guitar")
    title(page).to_have_text("guitar")
    page.locator("#near-list button.open", has_text="stringed instrument").first.click()
    title(page).to_have_text("stringed instrument")
    shoot("neighbours")
    search(page, "jazz")
    title(page).to_have_text("jazz")
    page.click("#seed")
    page.fill("#seed-text", "ocean")
    expect(page.locator("#seed-matches li").first).to_have_text("ocean")
    page.keyboard.press("Enter")
    expect(page.locator("#seed-list li")).to_have_count(2)
    expect(page.locator("#playlist .clip", has_text=re.compile("sea")).last).to_be_visible()
    page.click("#next")
    shoot("radio")
    page.click("#tab-speed")
    page.click("#measure-all")
    expect(page.locator("#speed-table tbody tr")).to_have_count(7, timeout=60_000)
    shoot("recall")
    page.click("#tab-file")
    shoot("file")


@pytest.fixture(scope="module")
def words_address() -> Iterator[str]:
    """The page without a file: the words of the demo."""
    with serving() as (where, _):
        yield where


@pytest.mark.slow
def test_a_map_by_umap(open_page: OpenPage, address: str) -> None:
    pytest.importorskip("umap")
    page = open_page(address + "#item=item%3A50")
    before = page.locator("#map").screenshot()
    page.select_option("#map-method", "umap")
    note = page.locator("#map-note")
    expect(note).to_have_text(f"{ITEMS:,} items on UMAP", timeout=400_000)
    title(page).to_have_text("item:50")
    assert page.locator("#map").screenshot() != before
    page.click("#seed")
    expect(page.locator("#playlist li")).to_have_count(20, timeout=60_000)


# ---- a million ----


@pytest.mark.slow
def test_a_million_items(
    open_page: OpenPage, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    path = tmp_path / "million.annidx"
    made = annidx.Index(32, "euclidean", "int8")
    vectors = clustered(10**6, 32)
    made.add_items(np.clip(vectors * 30, -127, 127).astype(np.int8))
    made.build(neighbours=0)
    made.save(path)
    with serving(str(path)) as (where, _):

        def timed(name: str, act: Callable[[], None]) -> None:
            start = time.perf_counter()
            act()
            took = time.perf_counter() - start
            record_property(name, round(took, 3))
            print(f"{name}: {took:.3f} s")

        pages: list[Page] = []
        timed("address to everything shown", lambda: pages.append(open_page(where)))
        page = pages[0]
        paint = page.evaluate(
            "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
        )
        record_property("first paint", round(paint, 3))
        print(f"first paint: {paint:.3f} s")
        expect(page.locator("#map-note")).to_have_text("5,000 items on two principal axes")

        def complete(text: str, first: str | None = None) -> None:
            page.fill("#search-text", text)
            expect(page.locator("#search-list li").first).to_have_text(first or text)

        timed("first completion", lambda: complete("99999"))
        timed("a completion", lambda: complete("7654"))
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        timed("a completion of nothing", lambda: complete("no such", "Nothing found"))

        def walk() -> None:
            before = page.locator("#near-list .clip").first.text_content()
            page.locator("#near-list button.open").first.click()
            title(page).to_have_text(before)

        page.keyboard.press("Escape")
        timed("a step of the walk", walk)

        def radio() -> None:
            page.click("#seed")
            expect(page.locator("#playlist li")).to_have_count(20)

        timed("a playlist", radio)
        page.click("#tab-speed")

        def measure() -> None:
            page.click("#measure")
            expect(page.locator("#speed-table tbody tr")).to_have_count(1, timeout=60_000)

        timed("the first measurement", measure)
        page.close()  # it asks again and again; its server goes


def test_only_vectors_of_another_dimension_are_refused(open_page: OpenPage, tmp_path: Path) -> None:
    path = tmp_path / "live.annidx"
    publish(path, 100)
    with serving(str(path)) as (where, _):
        page = open_page(where)
        other = annidx.Index(DIM + 1, "angular")
        other.add_items(clustered(50, DIM + 1), ids=[str(i) for i in range(50)])
        other.build()
        other.save(path)
        expect(page.locator("#news")).to_contain_text("another dim")
        expect(page.locator("#file-summary")).to_contain_text("100 items")
        page.close()  # it asks again and again; its server goes
