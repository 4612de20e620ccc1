"""What people do with conversations every day: versions, the list, finding, prompts, comparing."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, expect

from tests.browser.chat_page import Chat
from tests.browser.service import Service, whole
from tests.support import ROOT
from tests.support.waiting import wait_for
from tests.unit.ui.test_documents import image, pdf


@pytest.fixture(scope="module")
def service(folder: Path, browser: Browser) -> Iterator[Service]:
    # The second model takes pictures.
    models = (ROOT / "config" / "litellm.yaml").read_text()
    config = folder / "models.yaml"
    config.write_text(
        models.replace('{description: "everything', '{supports_vision: true, description: "everything')
    )
    with whole(folder, LITELLM_CONFIG=str(config)) as running:
        yield running


@pytest.fixture
def chat(service: Service, context: BrowserContext) -> Chat:
    service.reset()
    return Chat(context.new_page(), service.url("ui")).open()


@pytest.fixture
def listed(chat: Chat) -> Locator:
    """The list of conversations."""
    return chat.page.get_by_role("navigation", name="Conversations")


def bodies(service: Service, model: str = "coder") -> list[Any]:
    """The requests that an engine has got."""
    return [request["body"] for request in service.engines[model].requests()]


def test_every_version_of_an_answer_and_a_question_stays(chat: Chat, service: Service) -> None:
    service.engines["coder"].set(text="first answer", times=1)
    chat.ask("What is one?")
    chat.answered()
    service.engines["coder"].set(text="second answer", times=1)
    chat.button("Regenerate").click()
    expect(chat.messages.last).to_contain_text("second answer")
    chat.answered()
    expect(chat.messages.last).to_contain_text("2/2")
    chat.messages.last.get_by_role("button", name="Previous version").click()
    expect(chat.messages.last).to_contain_text("first answer")
    chat.page.keyboard.press("Escape")
    chat.ask("And two?")
    chat.answered(2)
    assert [each["content"] for each in bodies(service)[-1]["messages"]] == [
        "What is one?",
        "first answer",
        "And two?",
    ]
    chat.messages.first.get_by_role("button", name="Edit").click()
    chat.page.get_by_label("Edit the question").fill("What is three?")
    chat.button("Ask again").click()
    chat.answered()
    chat.page.reload()
    expect(chat.messages.first).to_contain_text("What is three?")
    chat.messages.first.get_by_role("button", name="Previous version").click()
    expect(chat.messages).to_have_count(4)
    expect(chat.messages.nth(1)).to_contain_text("first answer")
    chat.messages.nth(1).get_by_role("button", name="Next version").click()
    expect(chat.messages).to_have_count(2)
    expect(chat.messages.last).to_contain_text("second answer")


def test_the_list_renames_pins_files_and_deletes(chat: Chat, listed: Locator) -> None:
    for question in ("About apples", "About pears"):
        chat.ask(question)
        chat.answered()
        chat.button("New chat").click()
        expect(chat.messages).to_have_count(0)

    def choose(name: str, action: str) -> None:
        listed.get_by_text(name, exact=True).hover()
        chat.page.get_by_role("button", name=f"Actions for “{name}”").click()
        chat.page.get_by_role("menuitem", name=action).click()

    choose("About apples", "Rename")
    title = "Fruit <b>notes</b> [x](javascript:alert(1)) :smile:"
    chat.page.get_by_label("New name").fill(title)
    chat.page.keyboard.press("Enter")
    expect(listed.get_by_text(title, exact=True)).to_be_visible()
    choose(title, "Pin")
    expect(listed.get_by_role("heading", name="Pinned")).to_be_visible()
    choose(title, "Unpin")
    expect(listed.get_by_role("heading", name="Pinned")).to_have_count(0)
    choose("About pears", "Move to folder")
    chat.page.get_by_label("New folder").fill("Orchard")
    chat.page.keyboard.press("Enter")
    inside = listed.locator("details")
    expect(inside.get_by_text("About pears")).to_be_visible()
    choose(title, "Move to folder")
    chat.page.get_by_role("button", name="Orchard", exact=True).click()
    expect(inside.get_by_text(title)).to_be_visible()
    chat.page.reload()
    inside.get_by_text("Orchard").click()
    expect(inside.get_by_text("About pears")).to_be_hidden()
    chat.page.reload()
    expect(inside.get_by_text("Orchard")).to_be_visible()
    expect(inside.get_by_text("About pears")).to_be_hidden()  # as it was left
    inside.get_by_text("Orchard").click()
    choose("Orchard", "Rename folder")
    chat.page.get_by_label("New name").fill("Garden")
    chat.page.keyboard.press("Enter")
    expect(inside.locator("summary")).to_contain_text("Garden")
    choose("Garden", "Remove folder")
    expect(inside).to_have_count(0)
    choose(title, "Delete")
    expect(listed.get_by_text(title)).to_have_count(0)
    chat.button("Undo").click()
    expect(listed.get_by_text(title)).to_be_visible()


def test_the_model_writes_a_title_unless_that_is_off(chat: Chat, listed: Locator, service: Service) -> None:
    chat.ask("What does this do, and why?")
    chat.answered()
    chat.button("Settings").click()
    chat.page.get_by_text("Titles by the model").click()
    chat.page.keyboard.press("Escape")
    chat.button("New chat").click()
    expect(chat.messages).to_have_count(0)
    assert len(bodies(service)) == 1
    service.engines["coder"].set(text="A title by the model")  # and the answer
    chat.ask("And what does that do?")
    expect(listed.get_by_text("A title by the model")).to_be_visible()
    expect(listed.get_by_text("What does this do, and why?")).to_be_visible()
    chat.page.reload()
    expect(listed.get_by_text("A title by the model")).to_be_visible()
    assert len(bodies(service)) == 3 and bodies(service)[-1]["max_tokens"] == 32


def test_models_are_shown_with_real_name_and_state(chat: Chat, service: Service) -> None:
    picker = chat.page.get_by_role("button", name=re.compile("^Model: "))
    picker.click()
    options = chat.page.get_by_role("option")
    expect(options).to_have_count(2)
    expect(options.first).to_contain_text(re.compile("coder.*smollm2-135m.*code: write"))
    chat.page.keyboard.press("ArrowDown")
    chat.page.keyboard.press("Enter")
    expect(picker).to_have_text(re.compile("general"))
    service.engines["general"].set(healthy=False)
    expect(picker).to_have_text(re.compile("general down"))
    picker.click()
    expect(options.last).to_contain_text("down")
    service.engines["general"].reset()
    expect(picker).to_have_text(re.compile(r"^general\s*$"))
    expect(options.last).not_to_contain_text("down")  # as it is open


def test_a_key_finds_conversations_and_commands(chat: Chat, listed: Locator) -> None:
    for question in ("About apples", "About pears"):
        chat.ask(question)
        chat.answered()
        chat.button("New chat").click()
        expect(chat.messages).to_have_count(0)
    chat.page.keyboard.press("Control+k")
    palette = chat.page.get_by_role("dialog", name="Find a conversation or a command")
    expect(palette.get_by_role("option", name="About apples")).to_be_visible()
    chat.page.keyboard.type("apples")
    chat.page.keyboard.press("Enter")
    expect(palette).to_have_count(0)
    expect(chat.messages.first).to_contain_text("About apples")
    expect(chat.input).to_be_focused()
    chat.page.keyboard.press("ArrowUp")
    expect(chat.page.get_by_label("Edit the question")).to_be_focused()
    expect(chat.page.get_by_label("Edit the question")).to_have_value("About apples")
    chat.page.keyboard.press("Escape")
    chat.page.keyboard.press("Control+k")
    chat.page.keyboard.type("general")
    chat.page.keyboard.press("Enter")
    expect(chat.page.get_by_role("button", name="Model: general")).to_be_visible()
    chat.page.keyboard.press("Control+k")
    chat.page.keyboard.type("delete this")
    chat.page.keyboard.press("Enter")
    expect(listed.get_by_role("listitem")).to_have_count(1)
    chat.page.keyboard.press("Control+/")
    shortcuts = chat.page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(shortcuts).to_contain_text("Find a conversation or a command")
    chat.page.keyboard.press("Escape")
    expect(shortcuts).to_have_count(0)


def test_a_slash_inserts_a_prompt_and_instructions_begin_conversations(chat: Chat, service: Service) -> None:
    chat.button("Prompts").click()
    chat.page.get_by_label("Default instructions").fill("Be brief.")
    chat.page.get_by_label("Prompts for /").fill("weather")
    chat.page.keyboard.press("Enter")
    chat.page.get_by_label("Text", exact=True).fill("How is the weather in {{place}} on {{day}}? {{place}}!")
    chat.page.keyboard.press("Control+Enter")
    chat.page.wait_for_function("localStorage.getItem('duoserve.preferences')?.includes('weather')")
    chat.page.keyboard.press("Escape")
    chat.page.reload()  # they belong to the browser
    chat.input.wait_for()
    chat.page.get_by_text("Import, export").wait_for()
    chat.input.press_sequentially("/we")
    expect(chat.page.get_by_role("option", name="/weather")).to_be_visible()
    chat.page.keyboard.press("Enter")
    expect(chat.page.get_by_label("place")).to_be_focused()
    chat.page.keyboard.type("Oslo")
    chat.page.keyboard.press("Tab")
    chat.page.keyboard.type("Monday")
    chat.page.keyboard.press("Enter")
    expect(chat.input).to_have_value("How is the weather in Oslo on Monday? Oslo!")
    chat.page.keyboard.press("Enter")
    chat.answered()
    assert bodies(service)[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How is the weather in Oslo on Monday? Oslo!"},
    ]


def test_pictures_and_pdf_files_are_attached(chat: Chat, service: Service, tmp_path: Path) -> None:
    photo, paper = tmp_path / "photo.png", tmp_path / "paper.pdf"
    photo.write_bytes(image("PNG", (640, 480)))
    paper.write_bytes(pdf("The text of the paper"))
    chat.attach(photo, paper)
    chat.ask("What is this?")
    expect(chat.page.get_by_text("“photo.png” is a picture, and coder reads text only.")).to_be_visible()
    expect(chat.input).to_have_value("What is this?")
    assert bodies(service) == []
    chat.choose_model("general")
    chat.attach(photo)
    chat.input.press("Enter")
    chat.answered()
    (body,) = bodies(service, "general")
    picture, text = body["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert "The text of the paper" in text["text"] and "What is this?" in text["text"]
    shown = chat.messages.first.get_by_role("img", name="photo.png")
    assert shown.evaluate("(image) => image.complete && image.naturalWidth") == 640
    expect(chat.messages.first).to_contain_text("paper.pdf · 0.0 KB · read as PDF")


def test_two_models_answer_side_by_side(chat: Chat, service: Service, tmp_path: Path) -> None:
    service.engines["coder"].set(text="the first answer", itl_ms=20)
    service.engines["general"].set(text="the second answer " + "word " * 40, itl_ms=20)
    chat.page.get_by_role("button", name="Compare with another model").click()
    chat.page.get_by_role("option", name="general").click()
    expect(chat.page.get_by_role("button", name="Compared with: general")).to_be_visible()
    chat.ask("Which way?")
    expect(chat.page.get_by_role("region", name="Answer of general")).to_contain_text("the second answer")
    expect(chat.page.get_by_role("region", name="Answer of coder")).to_contain_text("the first answer")
    chat.page.reload()  # both go on
    better = chat.button("general is better")
    better.click()
    expect(better).to_have_attribute("aria-pressed", "true")
    chat.page.get_by_role("button", name="Stop comparing").click()
    expect(chat.page.get_by_role("button", name="Compared with: general")).to_have_count(0)
    chat.ask("And then?")
    expect(chat.messages).to_have_count(4)
    expect(chat.messages.last).to_contain_text("tokens/s")
    assert bodies(service)[-1]["messages"][1]["content"].startswith("the second answer")
    assert [len(bodies(service)), len(bodies(service, "general"))] == [2, 1]
    chat.button("Import, export").click()
    with chat.page.expect_download() as download:
        chat.button("↓ Export votes").click()
    (vote,) = json.loads(download.value.path().read_text())["votes"]
    assert (vote["question"], vote["models"], vote["better"]) == (
        "Which way?",
        ["coder", "general"],
        "general",
    )


def test_a_choice_and_a_question_in_one_moment_both_count(chat: Chat, service: Service) -> None:
    for times in range(1, 11):
        name, before = ("general", "coder") if times % 2 else ("coder", "general")
        expect(chat.page.get_by_role("button", name=f"Model: {before}")).to_be_visible()
        chat.input.fill(f"Question {times}")
        chat.page.get_by_role("button", name=f"Model: {before}").click()
        chat.page.get_by_role("option", name=name).evaluate(
            """(option, input) => {
                option.click();
                const enter = { key: "Enter", code: "Enter", keyCode: 13, bubbles: true };
                input.dispatchEvent(new KeyboardEvent("keydown", enter));
            }""",
            chat.input.element_handle(),
        )
        wait_for(lambda name=name, count=(times + 1) // 2: len(bodies(service, name)) == count, "not asked")
        chat.answered(times)


def test_stop_ends_both_answers(chat: Chat, service: Service) -> None:
    chat.page.get_by_role("button", name="Compare with another model").click()
    chat.page.get_by_role("option", name="general").click()
    for engine in service.engines.values():
        engine.set(completion_tokens=100_000, itl_ms=20)
    chat.ask("Tell me everything")
    for name in ("coder", "general"):
        expect(chat.page.get_by_role("region", name=f"Answer of {name}")).to_contain_text("error")
    chat.button("Stop").click()
    for engine in service.engines.values():
        wait_for(lambda engine=engine: engine.state()["running"] == 0, "the engine works on")
    expect(chat.page.get_by_text("Stopped.")).to_have_count(2)


PROMPTS = "".join((ROOT / "ui" / "frontend" / f"{name}.js").read_text() for name in ("prompts", "newest"))
# Calls a component as Streamlit does, the older data last.
OUT_OF_ORDER = """async (source) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { default: called } = await import(url);
  const data = (name, at) => ({ prompts: [{ name, text: "" }], at });
  called({ key: "one", data: data("newer", 2) });
  called({ key: "one", data: data("older", 1) });
}"""


def test_older_data_that_comes_last_changes_nothing(chat: Chat) -> None:
    chat.page.evaluate(OUT_OF_ORDER, PROMPTS)
    chat.input.fill("/")
    expect(chat.page.get_by_role("option", name="/newer")).to_be_visible()
    expect(chat.page.get_by_role("option", name="/older")).to_have_count(0)


def test_prompts_that_come_after_the_slash_are_offered(chat: Chat) -> None:
    chat.input.fill("/")
    chat.page.evaluate(OUT_OF_ORDER, PROMPTS)
    expect(chat.page.get_by_role("option", name="/newer")).to_be_visible()
