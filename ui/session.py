"""One browser tab's chat: what each button does, without drawing anything."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from ui import titles
from ui.answers import Answer
from ui.backend import Backend
from ui.conversation import Attachment, Conversation, Message, new_id, propose_title
from ui.router_client import ChatRequest
from ui.storage import BrowserStorage, Preset, Prompt

# With greedy sampling the model would give the same answer again.
_REGENERATE_TEMPERATURE = 0.7
_UNKNOWN = "This browser has no such conversation. It may have been deleted, or be in another browser."


@dataclass
class Undo:
    """How to take back the last action that lost something, and what to call it."""

    notice: str
    take_back: Callable[[], None]


@dataclass
class ChatSession:
    """The open conversation, and the answers that are being generated."""

    backend: Backend
    storage: BrowserStorage = field(default_factory=BrowserStorage)
    current: Conversation = field(default_factory=Conversation)
    answers: dict[str, Answer] = field(default_factory=dict)  # by conversation
    titles: dict[str, Answer] = field(default_factory=dict)  # being written, by conversation
    attached: list[Attachment] = field(default_factory=list)  # kept for the next question
    undoable: Undo | None = None
    opening: str = ""  # id of the conversation that the browser is asked for
    problem: str = ""  # why an empty conversation is open instead of the one that was asked for
    _ended: list[Answer] = field(default_factory=list)  # until the browser has stored them
    name: str = field(
        default_factory=lambda: f"chat-{new_id()}"
    )  # tells the router's fair queue the askers apart
    key: str = ""  # the SHA-256 of the asker's personal key; empty: they have none

    @property
    def answer(self) -> Answer | None:
        """The answer that is being generated in the open conversation."""
        return self.answers.get(self.current.id)

    def new(self) -> None:
        """Open an empty conversation with the model that was used last."""
        self.opening = ""
        if self.current.messages or self.current.id in self.storage.conversations:
            self._open(Conversation())
        self.current.options.model = self.storage.preferences.model
        if not self.current.options.system:
            self.current.options.system = self.storage.preferences.instructions

    def open(self, conversation_id: str, stored: object = None) -> None:
        """Open a conversation; an answer that was running when the page was reloaded goes on.

        The browser is asked for it, unless the session works with it already or has it as it is `stored`.
        """
        self.opening = ""
        if stored and conversation_id not in self.storage.conversations:
            self.storage.take(stored)
        if conversation := self.storage.conversations.get(conversation_id):
            self._open(conversation)
            self.resume()
        else:
            self._open(Conversation())
            self.opening = conversation_id
            self.storage.look_up(conversation_id)

    def _open(self, conversation: Conversation) -> None:
        self.current, self.problem = conversation, ""
        self.storage.let_go({conversation.id, *self.answers, *self.titles})

    def resume(self) -> None:
        """Find the answer that was running in the open conversation when its page was reloaded or closed.

        If the service has lost it, what the browser has kept of it is the answer.
        """
        answering = self.current.answering
        if self.answer or not answering:
            return
        if answer := self.backend.take_over(answering):
            self.answers[self.current.id] = answer
        elif self.backend.knows(answering):
            return  # another page has it, and stores it
        elif partial := self.storage.partial(answering):
            partial.ending, partial.failure_kind = "failed", "lost"
            partial.failure = "The connection was lost. The partial answer is saved."
            self.current.answering = ""
            self.current.answered(partial)
            self.storage.save(self.current, rescue=True)

    def ask(self, text: str, attachments: Sequence[Attachment] = ()) -> None:
        """Ask in the open conversation. A running answer is stopped, and kept."""
        self._end_running()
        self.undoable, self.problem = None, ""
        self.current.ask(text, [*self.attached, *attachments])
        self.attached = []
        self._send()

    def retry(self) -> None:
        """Ask the last question again; if it had an answer, ask for a different one."""
        self._end_running()
        before = self._snapshot()
        last = self.current.messages[-1]
        had_text = last.role == "assistant" and any(each.text for each in last.both)
        self.current.begin_answer()
        self._send(temperature=_REGENERATE_TEMPERATURE if had_text and last.ending != "failed" else None)
        self.undoable = self._restore("Answered again.", before) if had_text else None

    def go_on(self) -> None:
        """Continue the last answer where it was cut off."""
        self._end_running()
        self._send(self.current.messages[-1].model_copy())

    def edit(self, index: int, text: str, attached: Sequence[str] = ()) -> None:
        """Change the question at `index` to `text` and ask it, with the named ones of its attachments."""
        self._end_running()
        before = self._snapshot()
        followed = len(self.current.messages) > index + 1
        self.current.edit(index, text, attached)
        self._send()
        self.undoable = self._restore("Question edited.", before) if followed else None

    def show_version(self, index: int, number: int) -> None:
        """Show another version of the message at `index`. A running answer is stopped, and kept."""
        self._end_running()
        self.undoable = None
        self.current.show_version(index, number)
        self.storage.save(self.current)

    def vote(self, index: int, vote: Literal["", "this", "beside", "tie", "neither"]) -> None:
        """Say which of the two answers at `index` is better; the conversation goes on with that one."""
        self.current.messages[index].vote = vote
        self.storage.save(self.current)

    def delete_turn(self, index: int) -> None:
        """Delete the question and answer at `index`."""
        self._end_running()
        before = self._snapshot()
        self.current.delete_turn(index)
        self.storage.save(self.current)
        self.undoable = self._restore("Question and answer deleted.", before)

    def delete(self, conversation_id: str, name: str) -> None:
        """Delete the conversation that is called `name`."""
        conversation = self.storage.conversations.get(conversation_id)
        if answer := self.answers.pop(conversation_id, None):
            self.backend.stop(answer)
        self.storage.delete(conversation_id)
        if conversation:
            self.undoable = Undo(f"“{name}” deleted.", lambda: self._bring_back(conversation))
        else:
            self.undoable = Undo(f"“{name}” deleted.", lambda: self.storage.restore(conversation_id))
        if self.current.id == conversation_id:
            self._open(Conversation())
            self.new()

    def undo(self) -> None:
        """Take back the last deletion, edit or regeneration."""
        if self.undoable:
            undoable, self.undoable = self.undoable, None
            undoable.take_back()

    def rename(self, conversation_id: str, title: str) -> None:
        """Give a conversation a title; an empty one changes nothing."""
        if title.strip():
            self.storage.change(conversation_id, title=" ".join(title.split())[:200])

    def pin(self, conversation_id: str, pinned: bool) -> None:
        """Pin a conversation to the top, or unpin it."""
        self.storage.change(conversation_id, pinned=pinned)

    def move(self, conversation_ids: Sequence[str], folder: str) -> None:
        """Put conversations into a folder, which exists as long as one is in it; "" takes them out."""
        for each in conversation_ids:
            self.storage.change(each, folder=" ".join(folder.split())[:60])

    def add(self, conversations: Sequence[Conversation]) -> None:
        """Add imported conversations; one that exists already is added as a copy."""
        for conversation in conversations:
            conversation.revision, conversation.answering = new_id(), ""
            self.storage.add(conversation)

    def options_changed(self) -> None:
        """Store the open conversation's options, and its model for the next new conversation."""
        if self.storage.preferences.model != self.current.options.model:
            self.storage.preferences.model = self.current.options.model
            self.storage.save_preferences()
        if self.current.id in self.storage.conversations:
            self.storage.save(self.current)

    def save_preset(self, name: str, system: str) -> None:
        """Give a system prompt a name, or the preset with this name another prompt."""
        presets = self.storage.preferences.presets
        kept = next((preset for preset in presets if preset.name == name), None)
        if kept:
            kept.system = system
        else:
            presets.append(Preset(name=name[:60], system=system))
        self.storage.save_preferences()

    def delete_preset(self, name: str) -> None:
        """Delete a preset; conversations that use it keep their prompt. Can be undone."""
        before = list(self.storage.preferences.presets)
        self.storage.preferences.presets = [each for each in before if each.name != name]
        self.storage.save_preferences()
        self.undoable = Undo(f"Preset “{name}” deleted.", lambda: self._restore_presets(before))

    def instruct(self, instructions: str) -> None:
        """Have new conversations begin with this system prompt, and the open one if it is empty."""
        preferences = self.storage.preferences
        if not self.current.messages and self.current.options.system in ("", preferences.instructions):
            self.current.options.system = instructions
        preferences.instructions = instructions
        self.storage.save_preferences()

    def save_prompt(self, name: str, text: str) -> None:
        """Give a prompt for "/" a text; an empty one changes nothing."""
        name = " ".join(name.split())[:60]
        if not (name and text.strip()):
            return
        prompts = self.storage.preferences.prompts
        kept = [each for each in prompts if each.name != name]
        self.storage.preferences.prompts = [*kept, Prompt(name=name, text=text)]
        self.storage.save_preferences()

    def delete_prompt(self, name: str) -> None:
        """Delete a prompt for "/"."""
        prompts = self.storage.preferences.prompts
        self.storage.preferences.prompts = [each for each in prompts if each.name != name]
        self.storage.save_preferences()

    def _restore_presets(self, presets: list[Preset]) -> None:
        self.storage.preferences.presets = presets
        self.storage.save_preferences()

    def collect(self) -> bool:
        """Put answers and titles that have ended into their conversations; whether there were any answers."""
        self._collect_titles()
        ended = [key for key, answer in self.answers.items() if answer.ended]
        for key in ended:
            answer = self.answers.pop(key)
            conversation = self.current if key == self.current.id else self.storage.conversations.get(key)
            if conversation:
                self._keep(conversation, answer)
                self.storage.save(conversation)
                self._ask_for_title(conversation)
        return bool(ended)

    @property
    def news(self) -> bool:
        """Whether there is something to collect."""
        return any(answer.ended for answer in [*self.answers.values(), *self.titles.values()])

    def _ask_for_title(self, conversation: Conversation) -> None:
        """Have the model write a title, unless others are waiting for it."""
        busy = self.backend.waiting(conversation.options.model)
        if self.storage.preferences.titles and not busy and titles.wanted(conversation):
            asked = Answer(
                conversation.id,
                replace(
                    titles.request(conversation, self.name, self.backend.sees(conversation.options.model)),
                    key=self.key,
                ),
            )
            self.titles[conversation.id] = self.backend.ask(asked)

    def _collect_titles(self) -> None:
        for key in [key for key, answer in self.titles.items() if answer.ended]:
            answer = self.titles.pop(key)
            self.backend.stored(answer)
            conversation = self.storage.conversations.get(key)
            title = titles.read(answer.message)
            if conversation and title and conversation.title == propose_title(conversation.messages[0].text):
                self.rename(key, title)

    def unseen(self) -> list[Answer]:
        """The answers that are lost if the page goes away now: the browser has not stored them yet."""
        return [*self.answers.values(), *self._ended]

    def stored(self, receipt: object) -> None:
        """The browser has acknowledged changes; answers in them are not lost any more."""
        self.storage.acknowledged(receipt)
        for answer in [each for each in self._ended if not self.storage.unsaved(each.conversation)]:
            self._ended.remove(answer)
            self.backend.stored(answer)
            if answer.message.failure_kind == "personal":  # only now: the page can go without losing anything
                self.backend.refused(answer.request.key)

    def received(self, snapshot: object) -> None:
        """Take over what the browser holds."""
        for old, new in self.storage.receive(snapshot, self.answers).items():
            if old in self.answers:
                self.answers[new] = self.answers.pop(old)
            if old in self.titles:
                self.titles[new] = self.titles.pop(old)
            for answer in self.unseen():
                if answer.conversation == old:
                    answer.conversation = new
        held, wanted = self.storage.conversations, self.opening
        if wanted in held:
            self.open(wanted)
        elif wanted and not self.storage.looks_for(wanted):
            self.new()
            self.problem = self.storage.unreadable.get(wanted, _UNKNOWN)
        elif self.current.id in held:
            self.current = held[self.current.id]
        elif not self.current.messages and not wanted:
            self.new()
        self.storage.let_go({self.current.id, *self.answers, *self.titles})

    def _send(self, earlier: Message | None = None, temperature: float | None = None) -> None:
        """Ask; `earlier` is an answer to continue, `temperature` the default if the options have none."""
        options = self.current.options
        request = ChatRequest(
            model=options.model,
            messages=self.current.prompt(self.backend.sees(options.model)),
            temperature=temperature if options.temperature is None else options.temperature,
            top_p=options.top_p,
            max_tokens=options.max_tokens,
            user=self.name,
            continue_last=earlier is not None,
            key=self.key,
        )
        answer = Answer(self.current.id, request, earlier)
        if options.rival and not earlier:
            messages = self.current.prompt(self.backend.sees(options.rival))
            answer.compare(Answer(self.current.id, replace(request, model=options.rival, messages=messages)))
        self.backend.ask(answer)
        self.answers[self.current.id] = answer
        self.current.answering = answer.id
        self.storage.save(self.current)

    def _end_running(self) -> None:
        answer = self.answers.pop(self.current.id, None)
        if answer:
            self.backend.stop(answer)
            self._keep(self.current, answer)

    def _keep(self, conversation: Conversation, answer: Answer) -> None:
        message = answer.message.model_copy(deep=True)
        if answer.phase != "ended":
            message.ending = "stopped"
        conversation.answering = ""
        conversation.answered(message)
        self._ended.append(answer)

    def _snapshot(self) -> Conversation:
        return copy.deepcopy(self.current)

    def _restore(self, notice: str, before: Conversation) -> Undo:
        def take_back() -> None:
            before.updated = datetime.now(UTC)  # for other devices, newer than what is taken back
            self._bring_back(before)

        return Undo(notice, take_back)

    def _bring_back(self, before: Conversation) -> None:
        if answer := self.answers.pop(before.id, None):
            self.backend.stop(answer)
        kept = self.storage.conversations.get(before.id)
        before.revision = kept.revision if kept else ""
        before.answering = ""
        self.storage.save(before)
        self.current = before
