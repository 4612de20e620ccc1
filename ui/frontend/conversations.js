// The list of conversations in the sidebar: opening them, and renaming, pinning, filing and deleting from the row.
// Python's side is views/sidebar.py. Output: `action`, what somebody has asked for.
const SHOWN = 40, CLOSED = "duoserve.folders.closed";

let component = null; // as it was passed last
let list = null;
let drawn = ""; // the JSON that the list shows
let everything = false; // instead of the first 40
let busy = false; // a menu is open or a name is being typed: the list stays as it is

const element = (tag, className = "", text = "") => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
};
const act = (action) => component.setTriggerValue("action", { nonce: Math.random(), ...action });

const closedFolders = () => new Set(JSON.parse(localStorage.getItem(CLOSED) ?? "[]"));

function rememberFolder(name, open) {
  const closed = closedFolders();
  if (open) closed.delete(name);
  else closed.add(name);
  localStorage.setItem(CLOSED, JSON.stringify([...closed]));
}

// --- the menu of a row ---

const menu = element("div", "menu");
menu.setAttribute("role", "menu");
menu.hidden = true;
document.body.append(menu);
let opener = null;

function closeMenu(focus = false) {
  if (menu.hidden) return;
  menu.hidden = true;
  opener?.setAttribute("aria-expanded", "false");
  if (focus) opener?.focus();
  busy = false;
  draw();
}

// `items` are [label, function] or null for a line between them; a function that returns true keeps the menu open.
function fillMenu(items) {
  menu.replaceChildren(...items.map((item) => {
    if (!item) return element("hr");
    const button = element("button", "", item[0]);
    button.type = "button";
    button.setAttribute("role", "menuitem");
    button.onclick = () => {
      if (item[1]() !== true) closeMenu();
    };
    return button;
  }));
  const box = opener.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = menu;
  menu.style.left = `${Math.max(8, Math.min(box.left, window.innerWidth - width - 8))}px`;
  menu.style.top = `${box.bottom + height + 8 < window.innerHeight ? box.bottom + 4 : Math.max(8, box.top - height - 4)}px`;
  menu.querySelector("button, input")?.focus();
}

function openMenu(button, items) {
  const again = opener === button && !menu.hidden;
  closeMenu();
  if (again) return;
  opener = button;
  busy = true;
  menu.hidden = false;
  button.setAttribute("aria-expanded", "true");
  menu.setAttribute("aria-label", button.getAttribute("aria-label"));
  fillMenu(items);
}

menu.onkeydown = (event) => {
  const items = [...menu.querySelectorAll("button")];
  const at = items.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape") closeMenu(true);
  else if (event.key === "Tab") return closeMenu();
  else if (step && items.length) items[(at + step + items.length) % items.length].focus();
  else return;
  event.preventDefault();
  event.stopPropagation();
};
document.addEventListener("pointerdown", (event) => {
  if (!menu.contains(event.target) && !opener?.contains(event.target)) closeMenu();
}, true);
window.addEventListener("resize", () => closeMenu());
document.addEventListener("scroll", ({ target }) => target.contains?.(opener) && closeMenu(), true);

function itemsOf(each, row) {
  return [
    ["Rename", () => void rename(row, each.name, (name) => act({ do: "rename", id: each.id, name }))],
    [each.pinned ? "Unpin" : "Pin", () => void act({ do: "pin", id: each.id })],
    ["Move to folder …", () => folders(each)],
    null,
    ["Delete", () => void act({ do: "delete", id: each.id })],
  ];
}

function folders(each) {
  const move = (folder) => act({ do: "move", id: each.id, folder });
  fillMenu([
    ...component.data.folders.filter((name) => name !== each.folder).map((name) => [name, () => void move(name)]),
    ...(each.folder ? [[`Out of “${each.folder}”`, () => void move("")]] : []),
  ]);
  const form = element("form");
  const name = element("input");
  name.placeholder = "New folder";
  name.maxLength = 60;
  name.setAttribute("aria-label", "New folder");
  form.append(name);
  form.onsubmit = (event) => {
    event.preventDefault();
    if (!name.value.trim()) return;
    move(name.value.trim());
    closeMenu();
  };
  menu.append(form);
  menu.querySelector("button, input").focus();
  return true;
}

// The name becomes an input; Enter or leaving it keeps what was typed, Escape does not.
function rename(row, before, done) {
  setTimeout(() => {
    busy = true;
    const input = element("input", "renaming");
    input.value = before;
    input.maxLength = 200;
    input.setAttribute("aria-label", "New name");
    row.replaceChildren(input);
    const finish = (keep) => {
      if (!input.isConnected) return;
      input.onblur = null;
      const name = input.value.trim();
      if (keep && name && name !== before) done(name);
      busy = false;
      drawn = "";
      draw();
    };
    input.onkeydown = (event) => {
      if (event.key === "Enter" && !event.isComposing) finish(true);
      else if (event.key === "Escape") finish(false);
      else return;
      event.preventDefault();
      event.stopPropagation();
    };
    input.onblur = () => finish(true);
    input.focus();
    input.select();
  });
}

// --- the list ---

function more(name, items) {
  const button = element("button", "more", "⋯");
  button.type = "button";
  button.setAttribute("aria-label", `Actions for “${name}”`);
  button.setAttribute("aria-haspopup", "menu");
  button.setAttribute("aria-expanded", "false");
  button.onclick = (event) => {
    event.preventDefault(); // does not fold the folder
    openMenu(button, items());
  };
  return button;
}

function row(each) {
  const made = element("li", "row");
  const open = element("button", "open");
  open.type = "button";
  open.dataset.id = each.id;
  open.title = each.name;
  if (each.id === component.data.open) open.setAttribute("aria-current", "true");
  const name = element("span", "name", each.name);
  name.dir = "auto";
  open.append(name);
  if (each.running) {
    const running = element("span", "running");
    running.setAttribute("role", "img");
    running.setAttribute("aria-label", "is being answered");
    open.append(running);
  }
  if (each.snippet) open.append(element("span", "snippet", each.snippet));
  open.onclick = () => act({ do: "open", id: each.id });
  open.ondblclick = () => rename(made, each.name, (name) => act({ do: "rename", id: each.id, name }));
  made.append(open, more(each.name, () => itemsOf(each, made)));
  return made;
}

function group(name, items) {
  const made = element("section");
  const rows = element("ul");
  rows.append(...items.map(row));
  if (items[0].folder && name === items[0].folder && items[0].group === "") {
    const details = element("details", "folder");
    details.open = !closedFolders().has(name);
    details.ontoggle = () => rememberFolder(name, details.open);
    const summary = element("summary");
    summary.append(element("span", "name", name), more(name, () => [
      ["Rename folder", () => void rename(summary, name, (to) => act({ do: "rename folder", folder: name, name: to }))],
      ["Remove folder, keep its conversations", () => void act({ do: "rename folder", folder: name, name: "" })],
    ]));
    details.append(summary, rows);
    made.append(details);
  } else {
    made.append(element("h2", "", name), rows);
  }
  return made;
}

function draw() {
  const source = JSON.stringify([component.data, everything]);
  if (busy || source === drawn) return;
  drawn = source;
  const { items } = component.data;
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  const groups = new Map();
  for (const each of everything ? items : items.slice(0, SHOWN)) {
    const name = each.group || each.folder;
    groups.set(name, [...(groups.get(name) ?? []), each]);
  }
  list.replaceChildren(...[...groups].map(([name, those]) => group(name, those)));
  if (items.length > SHOWN && !everything) {
    const all = element("button", "all", `Show all ${items.length}`);
    all.type = "button";
    all.onclick = () => {
      everything = true;
      draw();
    };
    list.append(all);
  }
  if (focused) list.querySelector(`[data-id="${focused}"]`)?.focus();
}

export default function (passed) {
  component = passed;
  const { parentElement } = passed;
  if (!list || !parentElement.contains(list)) {
    list = element("nav", "conversations");
    list.setAttribute("aria-label", "Conversations");
    parentElement.append(list);
    drawn = "";
  }
  draw();
}
