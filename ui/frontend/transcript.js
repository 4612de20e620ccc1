// Draws the messages of a conversation, and the answer that grows, which it follows by itself (see streaming.py).
// Python's side is views/messages.py. Output: `action`, what somebody has asked for, or that an answer has ended.
const PREFERENCES = "duoserve.preferences";
const CONTROL = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘ " : "Ctrl+";

let component = null; // as it was passed last
let list = null; // the element that holds the messages
let drawn = new Map(); // elements by index, each with the JSON it was drawn from
let growth = null; // {id, sources, element}
let following = true; // the end is kept in view
let lastTop = 0;

const element = (tag, className = "", text = "") => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
};
const act = (action) =>
  component.setTriggerValue("action", { conversation: component.data.conversation, nonce: Math.random(), ...action });

// --- copying, wrapping and editing ---

async function copy(button, text) {
  const label = button.textContent;
  const done = await navigator.clipboard.writeText(text).then(() => "Copied", () => "Not copied");
  button.textContent = done;
  setTimeout(() => (button.textContent = label), 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.(".code-bar button");
  if (!button) return;
  const code = button.closest(".code");
  if (button.dataset.do === "copy-code") copy(button, code.querySelector("code").textContent);
  else button.setAttribute("aria-pressed", String(code.classList.toggle("wrapped")));
});

function edit(message, body, actions) {
  const form = element("form", "edit");
  const text = element("textarea");
  text.value = message.text;
  text.setAttribute("aria-label", "Edit the question");
  text.dir = "auto";
  const kept = message.files.map((file) => {
    const label = element("label", "kept");
    const box = element("input");
    box.type = "checkbox";
    box.checked = true;
    label.append(box, file.name);
    return { name: file.name, box, label };
  });
  const send = element("button", "primary", "Ask again");
  const cancel = element("button", "", "Cancel");
  cancel.type = "button";
  const row = element("div", "actions");
  row.append(send, cancel, element("span", "figures", `${CONTROL}Enter sends`));
  form.append(text, ...kept.map((each) => each.label), row);
  const close = () => {
    form.replaceWith(body);
    actions.hidden = false;
    actions.querySelector("button:not(.versions button)").focus();
  };
  const sendable = () => (send.disabled = !text.value.trim() && !kept.some((each) => each.box.checked));
  form.oninput = sendable;
  form.onsubmit = (event) => {
    event.preventDefault();
    if (send.disabled) return;
    act({ do: "edit", index: message.index, text: text.value, kept: kept.filter((each) => each.box.checked).map((each) => each.name) });
  };
  form.onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  cancel.onclick = close;
  body.replaceWith(form);
  actions.hidden = true;
  text.style.height = `${Math.min(text.scrollHeight + 4, window.innerHeight / 2)}px`;
  text.focus();
  text.setSelectionRange(text.value.length, text.value.length);
}

// In the empty input, the key goes to what was asked last.
document.addEventListener("keydown", (event) => {
  const input = event.target;
  if (event.key !== "ArrowUp" || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || event.isComposing) return;
  if (!input.matches?.('[data-testid="stChatInputTextArea"]') || input.value) return;
  const question = [...(list?.querySelectorAll(".message.user") ?? [])].at(-1);
  const button = [...(question?.querySelectorAll(".actions button") ?? [])].find((each) => each.textContent === "Edit");
  if (!button) return;
  event.preventDefault();
  button.click();
});

// --- messages ---

function fold(className, label, html) {
  const details = element("details", className);
  details.append(element("summary", "", label));
  const inside = element("div", "fold");
  inside.innerHTML = html;
  details.append(inside);
  return details;
}

function picture({ name, picture }) {
  const made = element("img", "picture");
  made.src = picture;
  made.alt = made.title = name;
  return made;
}

function retryButton(button, seconds) {
  const due = Date.now() + seconds * 1000;
  const count = () => {
    const left = Math.ceil((due - Date.now()) / 1000);
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left > 0 && button.isConnected) setTimeout(count, 250);
  };
  setTimeout(count);
}

function shell(role) {
  const made = element("article", `message ${role}`);
  made.dataset.testid = "message";
  made.setAttribute("aria-label", role === "user" ? "Your question" : "Answer");
  return made;
}

// ‹ 1/2 ›
function versions(message) {
  const group = element("span", "versions");
  const step = (sign, label, number) => {
    const button = element("button", "", sign);
    button.type = "button";
    button.setAttribute("aria-label", label);
    button.title = label;
    button.disabled = number < 0 || number >= message.versions;
    button.onclick = () => act({ do: "version", index: message.index, number });
    return button;
  };
  group.append(
    step("‹", "Previous version", message.version - 1),
    element("span", "", `${message.version + 1}/${message.versions}`),
    step("›", "Next version", message.version + 1),
  );
  return group;
}

// What a message says, without what can be done with it.
function content(message) {
  const body = element("div", "body");
  const text = element("div", message.html ? "markdown" : "verbatim");
  text.dir = "auto";
  if (message.html) text.innerHTML = message.html;
  else text.textContent = message.text;
  if (message.reasoning) body.append(fold("reasoning", "Reasoning", message.reasoning));
  if (message.text) body.append(text);
  for (const file of message.files ?? []) body.append(file.picture ? picture(file) : fold("file", file.label, file.html));
  if (message.failure) {
    const failure = element("p", "failure", message.failure);
    failure.setAttribute("role", "alert");
    body.append(failure);
  }
  if (message.note) body.append(element("p", "note", message.note));
  return body;
}

function column(model, body) {
  const made = element("section", "column");
  made.setAttribute("aria-label", `Answer of ${model}`);
  made.append(element("h3", "", model), body);
  return made;
}

// The answers of two models, and the vote.
function pair(message) {
  const made = element("div", "body");
  const both = element("div", "pair");
  const better = { this: 0, beside: 1 }[message.vote];
  [message, message.beside].forEach((each, number) => {
    const one = column(each.model, content(each));
    one.classList.toggle("better", number === better);
    const below = element("div", "actions");
    const button = element("button", "", "Copy");
    button.type = "button";
    button.setAttribute("aria-label", `Copy the answer of ${each.model}`);
    button.onclick = () => copy(button, each.text);
    below.append(button, element("span", "figures", each.figures));
    one.append(below);
    both.append(one);
  });
  const votes = element("div", "votes");
  votes.setAttribute("role", "group");
  votes.setAttribute("aria-label", "Which answer is better?");
  const labels = {
    this: `${message.model} is better`, beside: `${message.beside.model} is better`, tie: "Equally good", neither: "Neither",
  };
  for (const [vote, label] of Object.entries(labels)) {
    const button = element("button", "", label);
    button.type = "button";
    button.setAttribute("aria-pressed", String(message.vote === vote));
    button.onclick = () => act({ do: "vote", index: message.index, vote: message.vote === vote ? "" : vote });
    votes.append(button);
  }
  made.append(both, votes);
  return made;
}

function draw(message) {
  const made = shell(message.role);
  const body = message.beside ? pair(message) : content(message);
  const actions = element("div", "actions");
  if (message.versions) actions.append(versions(message));
  const named = { copy: message.role === "user" ? "Copy the question" : "Copy the answer", delete: "Delete this question and its answer" };
  for (const [name, label] of message.actions) {
    const button = element("button", "", label);
    button.type = "button";
    if (named[name]) button.title = named[name];
    button.setAttribute("aria-label", named[name] ?? label);
    if (name === "delete") button.setAttribute("aria-label", "Delete");
    if (label === "Try again") {
      button.removeAttribute("aria-label");
      if (message.wait) retryButton(button, message.wait);
    }
    button.onclick = () => {
      if (name === "copy") copy(button, message.text);
      else if (name === "edit") edit(message, body, actions);
      else act({ do: name, index: message.index });
    };
    actions.append(button);
  }
  if (message.figures && !message.beside) actions.append(element("span", "figures", message.figures));
  made.append(body, actions);
  return made;
}

function update(data) {
  const elements = [];
  const next = new Map();
  for (const message of data.messages) {
    const { wait, ...same } = message; // counts down by itself
    const source = JSON.stringify(same);
    const before = drawn.get(message.index);
    next.set(message.index, before?.source === source ? before : { source, element: draw(message) });
    if (message.above) elements.push(element("p", "cut", message.above));
    elements.push(next.get(message.index).element);
  }
  drawn = next;
  if (data.earlier) {
    const earlier = element("button", "earlier", `Show ${Math.min(data.page, data.earlier)} earlier messages (${data.earlier} in all)`);
    earlier.type = "button";
    earlier.onclick = () => act({ do: "earlier" });
    elements.unshift(earlier);
  }
  if (growth) elements.push(growth.element);
  // Only what differs is moved, so that an open editor or a selection in what stays survives.
  let at = list.firstChild;
  for (const each of elements) {
    if (each === at) at = at.nextSibling;
    else list.insertBefore(each, at);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

// --- the growing answer ---

function keepPartial(conversation, answer, message) {
  try {
    const place = JSON.parse(localStorage.getItem(PREFERENCES))?.keep === "tab" ? sessionStorage : localStorage;
    place.setItem(`duoserve.partial.${conversation}.${answer}`, JSON.stringify([answer, message]));
  } catch (error) {
    console.warn("partial answer", error); // losing it is no reason to stop the answer
  }
}

function splice(target, blocks, [kept, added]) {
  for (const each of blocks.splice(kept).flat()) each.remove();
  for (const html of added) {
    const template = element("template");
    template.innerHTML = html;
    const nodes = [...template.content.childNodes];
    target.append(...nodes);
    blocks.push(nodes);
  }
}

function grow(data) {
  if (growth && growth.id !== data.growing) {
    for (const source of growth.sources) source.close();
    growth.element.remove();
    growth = null;
  }
  if (growth || !data.growing) return;
  const made = shell("assistant");
  made.setAttribute("aria-busy", "true");
  const [body, source] = follow(data.growing, data.conversation);
  growth = { id: data.growing, sources: [source], element: made };
  if (!data.beside) return made.append(body);
  const [other, second] = follow(data.beside.id, "");
  growth.sources.push(second);
  const both = element("div", "pair");
  both.append(column(data.model, body), column(data.beside.model, other));
  made.append(both);
}

// An element in which an answer grows, and where it comes from. The browser keeps what has come if `conversation` is given.
function follow(answer, conversation) {
  const body = element("div", "body");
  const thoughts = fold("reasoning", "Reasoning", "");
  thoughts.open = true;
  thoughts.hidden = true;
  const text = element("div", "markdown");
  text.dir = "auto";
  const note = element("p", "note");
  const dots = element("p", "dots");
  dots.setAttribute("aria-label", "Waiting for the first token");
  dots.append(element("i"), element("i"), element("i"));
  body.append(thoughts, text, dots, note);
  const source = new EventSource(`answers/${answer}`);
  let blocks = { text: [], reasoning: [] };
  const targets = { text, reasoning: thoughts.querySelector(".fold") };
  const end = () => {
    source.close();
    act({ do: "ended", answer });
  };
  source.onopen = () => {
    // Everything is told from its beginning, after a cut of the network as well.
    for (const name in targets) targets[name].replaceChildren();
    blocks = { text: [], reasoning: [] };
  };
  source.onerror = () => source.readyState === EventSource.CLOSED && end();
  source.onmessage = ({ data: told }) => {
    const event = JSON.parse(told);
    for (const name in targets) {
      if (!event[name]) continue;
      splice(targets[name], blocks[name], event[name]);
      dots.hidden = true;
    }
    if (event.reasoning) thoughts.hidden = false;
    if (event.text) thoughts.open = false;
    if ("note" in event) note.textContent = event.note;
    if (event.keep && conversation) keepPartial(conversation, answer, event.keep);
    if (event.ended) end();
  };
  return [body, source];
}

// --- where the page is scrolled to ---

const scroller = () => list?.closest('[data-testid="stMain"]');
const below = (main) => main.scrollHeight - main.scrollTop - main.clientHeight;
const toEnd = () => {
  const main = scroller();
  if (main) main.scrollTop = main.scrollHeight;
};
const jump = element("button", "", "↓ Jump to latest");
jump.id = "jump";
jump.type = "button";
jump.hidden = true;
document.body.append(jump);
jump.onclick = () => {
  following = true;
  toEnd();
};

function place() {
  const main = scroller();
  const input = document.querySelector('[data-testid="stBottom"]');
  jump.hidden = !main || !input || following || below(main) < 100;
  if (jump.hidden) return;
  const box = input.getBoundingClientRect();
  jump.style.left = `${box.left + box.width / 2}px`;
  jump.style.bottom = `${window.innerHeight - box.top + 8}px`;
}

document.addEventListener("scroll", ({ target }) => {
  if (target !== scroller()) return;
  if (below(target) < 4) following = true;
  else if (target.scrollTop < lastTop) following = false;
  lastTop = target.scrollTop;
  place();
}, true);
document.addEventListener("wheel", (event) => {
  const main = scroller();
  if (event.deltaY < 0 && main?.contains(event.target) && main.scrollHeight > main.clientHeight) following = false;
}, { capture: true, passive: true });
const sizes = new ResizeObserver(() => {
  if (following) toEnd();
  place();
});
window.addEventListener("resize", place);

function receive(passed) {
  component = passed;
  const { data, parentElement } = passed;
  const found = parentElement.querySelector(".transcript");
  const opened = !list || list.dataset.conversation !== data.conversation;
  if (list !== found) {
    sizes.disconnect();
    list = found;
    sizes.observe(list);
    drawn = new Map();
  }
  if (opened) {
    drawn = new Map();
    following = true;
    list.dataset.conversation = data.conversation;
  }
  list.setAttribute("aria-label", data.title);
  const heading = parentElement.querySelector("h1");
  heading.textContent = data.title;
  heading.hidden = !data.messages.length && !data.growing;
  const main = scroller();
  const distance = main ? below(main) : 0;
  const before = list.querySelector(".earlier") && drawn.size;
  grow(data);
  update(data);
  if (opened) requestAnimationFrame(toEnd);
  else if (before && drawn.size >= before + data.page) main.scrollTop = main.scrollHeight - main.clientHeight - distance;
  parentElement.querySelector("[role=status]").textContent = data.growing ? `${data.model} is answering.` : data.messages.length ? "The answer is complete." : "";
}
