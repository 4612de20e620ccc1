// A "/" at the start of a question offers prompts; {{words}} in braces are asked for before one is inserted.
// Input: {prompts: [{name, text}]}.
const INPUT = '[data-testid="stChatInputTextArea"]';
const VARIABLE = /\{\{\s*([^{}]+?)\s*\}\}/g;

let prompts = [];
let at = 0; // which of the offered ones is marked

const element = (tag, className = "", text = "") => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
};

const menu = element("div", "menu prompts");
menu.setAttribute("role", "listbox");
menu.setAttribute("aria-label", "Prompts");
menu.hidden = true;
document.body.append(menu);
const close = () => (menu.hidden = true);

// As if it was typed, so that Streamlit knows of it.
function write(text) {
  const input = document.querySelector(INPUT);
  if (!input) return;
  Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(input, text);
  input.dispatchEvent(new Event("input", { bubbles: true }));
  input.focus();
  input.setSelectionRange(text.length, text.length);
}

function choose({ name, text }) {
  close();
  const names = [...new Set([...text.matchAll(VARIABLE)].map(([, variable]) => variable))];
  if (!names.length) return write(text);
  const made = element("dialog", "palette fill");
  made.setAttribute("role", "dialog");
  made.setAttribute("aria-label", name);
  const form = element("form");
  form.append(element("h2", "", name));
  const fields = names.map((variable) => {
    const label = element("label", "", variable);
    const field = element("textarea");
    field.rows = 1;
    field.dir = "auto";
    field.oninput = () => {
      field.style.height = "auto";
      field.style.height = `${Math.min(field.scrollHeight + 2, 240)}px`;
    };
    label.append(field);
    form.append(label);
    return [variable, field];
  });
  const row = element("div", "row");
  const cancel = element("button", "", "Cancel");
  cancel.type = "button";
  cancel.onclick = () => made.close();
  row.append(cancel, element("button", "primary", "Insert"));
  form.append(row);
  form.onsubmit = (event) => {
    event.preventDefault();
    const values = new Map(fields.map(([variable, field]) => [variable, field.value.trim()]));
    made.close();
    write(text.replace(VARIABLE, (_, variable) => values.get(variable)));
  };
  made.onkeydown = (event) => {
    event.stopPropagation();
    if (event.key === "Escape") made.close();
    else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target.matches("textarea")) {
      event.preventDefault();
      form.requestSubmit();
    }
  };
  made.onclose = () => {
    made.remove();
    document.querySelector(INPUT)?.focus();
  };
  made.append(form);
  document.body.append(made);
  made.showModal();
  fields[0][1].focus();
}

function offered(text) {
  const typed = /^\/([^\s/]*)$/.exec(text)?.[1].toLowerCase();
  return typed === undefined ? [] : prompts.filter(({ name }) => name.toLowerCase().replaceAll(" ", "-").includes(typed));
}

function mark() {
  [...menu.children].forEach((each, number) => {
    each.setAttribute("aria-selected", String(number === at));
    if (number === at) each.scrollIntoView({ block: "nearest" });
  });
}

function show(input) {
  const found = offered(input.value);
  if (!found.length) return close();
  at = 0;
  menu.replaceChildren(...found.map((prompt) => {
    const made = element("button");
    made.type = "button";
    made.tabIndex = -1;
    made.setAttribute("role", "option");
    made.append(element("strong", "", `/${prompt.name.replaceAll(" ", "-")}`), element("span", "facts", prompt.text));
    made.onpointerdown = (event) => event.preventDefault(); // the input keeps the cursor
    made.onclick = () => choose(prompt);
    return made;
  }));
  mark();
  menu.hidden = false;
  const box = input.closest('[data-testid="stChatInput"]').getBoundingClientRect();
  menu.style.left = `${box.left}px`;
  menu.style.width = `${Math.min(box.width, 560)}px`;
  menu.style.bottom = `${window.innerHeight - box.top + 6}px`;
}

document.addEventListener("input", ({ target }) => target.matches?.(INPUT) && show(target));
document.addEventListener("focusout", ({ target }) => target.matches?.(INPUT) && close());
window.addEventListener("resize", close);
document.addEventListener("keydown", (event) => {
  if (menu.hidden || !event.target.matches?.(INPUT) || event.isComposing) return;
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) {
    at = (at + step + menu.children.length) % menu.children.length;
    mark();
  } else if (event.key === "Enter" || event.key === "Tab") menu.children[at].click();
  else if (event.key === "Escape") close();
  else return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, true);

function receive({ data }) {
  prompts = data.prompts;
  // Somebody may have typed the "/" already.
  if (document.activeElement?.matches(INPUT)) show(document.activeElement);
}
