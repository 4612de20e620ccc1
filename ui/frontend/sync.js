// Keeps this browser's conversations and the server's encrypted copies of them (sync.py) the same while that is on. Python's
// side is views/sidebar.py. Input: {vault}, the id of the copies, "" while it is off, and {problem}, why it cannot be on.
// For each conversation, localStorage has a record of the last exchange, which tells which side has changed since: {name, etag}
// of the copy, `mark` of what was stored here ("" for nothing), and `gone`, when it was deleted here (from storage.js).
const EVERY = 60_000, SOON = 1500; // milliseconds
const LABELS = ["title", "pinned", "folder"]; // as in storage.js's mark, after the revision
const DAMAGED = "A conversation on the server is damaged and was left out.";

let data = { vault: "", problem: "" };
let line = null; // the element that tells the state
let busy = false, due = false, timer = null, problem = "";

class Problem extends Error {} // with a sentence for people

// --- records ---

const prefix = () => `duoserve.sync.${data.vault}.`;
const read = (id) => JSON.parse(localStorage.getItem(prefix() + id));
const write = (id, record) => localStorage.setItem(prefix() + id, JSON.stringify(record));
const records = () => new Map(Object.keys(localStorage)
  .filter((key) => key.startsWith(prefix()))
  .map((key) => [key.slice(prefix().length), JSON.parse(localStorage.getItem(key))]));

// --- exchange ---

async function call(path, options) {
  if (!data.vault) throw new Problem("It was turned off.");
  const response = await fetch(path, options).catch(() => {
    throw new Problem("The server cannot be reached.");
  });
  if (response.ok || [404, 412, 422].includes(response.status)) return response;
  const { problem } = await response.json().catch(() => ({}));
  throw new Problem(problem ?? `The server answered ${response.status}.`);
}

// Whether `one` has all that is in `other`, so that nothing is lost without that.
function covers(one, other) {
  const same = (left, right) => JSON.stringify(left) === JSON.stringify(right);
  return same(one.first, other.first) && other.messages.every((message, at) => same(message, one.messages[at]));
}

// What to keep under the id of both, and what to keep as a copy. `base` is the mark of what both were before, if that is known.
function merge(ours, theirs, base) {
  const [revision, ...labels] = base ? JSON.parse(base) : [];
  const newer = new Date(theirs.updated) >= new Date(ours.updated);
  const take =
    theirs.revision === ours.revision || (ours.revision === revision && newer) ? theirs
    : theirs.revision === revision ? ours
    : covers(theirs, ours) ? theirs
    : covers(ours, theirs) ? ours
    : null;
  if (!take) {
    // With an id that another tab would give it, too, so that there is one copy.
    const copy = { ...ours, id: ours.revision, title: `${ours.title} (other device)`, answering: "" };
    return [theirs, copy];
  }
  const kept = { ...take };
  LABELS.forEach((label, at) => {
    if (base) kept[label] = (ours[label] ?? "") === labels[at] ? theirs[label] : ours[label];
  });
  return [kept, null];
}

// Takes over what the server has under a name. `known` is the id of the conversation, if there is a record of the file.
async function pull(name, etag, known, record) {
  const response = await call(`sync/${name}`);
  if (response.status === 404) return soon();
  if (response.status === 422) {
    const here = known && (await window.duoserveStorage.get(known));
    if (here) write(known, { name, etag, mark: "" }); // what is here replaces it
    else problem = DAMAGED;
    return;
  }
  const theirs = await response.json();
  const { get, mark, replace } = window.duoserveStorage;
  const { id } = theirs, ours = await get(id);
  let kept = theirs.deleted ? null : theirs, copy = null;
  if (theirs.deleted && ours) {
    const exchanged = record?.mark !== undefined;
    if (exchanged ? mark(ours) !== record.mark : new Date(ours.updated) > new Date(theirs.deleted)) kept = ours;
  } else if (ours) {
    [kept, copy] = merge(ours, theirs, record?.mark);
  }
  if (copy) await replace(copy.id, "", copy);
  if (JSON.stringify(kept) !== JSON.stringify(ours ?? null) && !(await replace(id, mark(ours), kept))) return soon();
  // A deletion that was noted meanwhile stays noted; one that was noted before the server's version changed is taken back.
  write(id, { name, etag, mark: theirs.deleted ? "" : mark(theirs), gone: ours ? read(id)?.gone : undefined });
}

async function push(content, etag) {
  const response = await call("sync", {
    method: "POST",
    headers: { "content-type": "application/json", ...(etag ? { "if-match": `"${etag}"` } : { "if-none-match": "*" }) },
    body: JSON.stringify(content),
  });
  const stored = await response.json();
  if (response.status === 412) {
    // What is there now comes first.
    if (!etag) write(content.id, { name: stored.name, etag: "" });
    return soon();
  }
  const { get, mark } = window.duoserveStorage;
  const record = { ...stored, mark: content.deleted ? "" : mark(content) };
  if (!content.deleted && !(await get(content.id))) record.gone = new Date().toISOString(); // deleted meanwhile
  write(content.id, record);
}

async function exchange() {
  const { list, get, mark } = window.duoserveStorage;
  const held = await (await call("sync")).json();
  let here = new Set((await list()).map(({ id }) => id));
  const ids = new Map([...records()].map(([id, { name }]) => [name, id]));
  for (const [name, etag] of Object.entries(held)) {
    const id = ids.get(name), record = id && read(id);
    const lost = record?.mark && !record.gone && !here.has(id);
    if (record?.etag !== etag || lost) await pull(name, etag, id, record);
  }
  const heads = (await list()).sort((one, other) => new Date(other.updated) - new Date(one.updated));
  here = new Set(heads.map(({ id }) => id));
  const version = (record) => (record && record.name in held ? record.etag : null);
  for (const [id, record] of records()) {
    if (!record.gone || here.has(id)) continue;
    if (!version(record)) localStorage.removeItem(prefix() + id);
    else if (record.mark) await push({ id, deleted: record.gone }, version(record));
  }
  for (const head of heads) {
    const record = read(head.id);
    if (record?.gone) write(head.id, { ...record, gone: undefined }); // somebody has brought it back
    if (version(record) && record.mark === mark(head)) continue;
    const conversation = await get(head.id);
    if (conversation) await push(conversation, version(record));
  }
}

// --- when, and what is told ---

function soon() {
  clearTimeout(timer);
  timer = setTimeout(run, SOON);
}

async function run() {
  if (!data.vault || !window.duoserveStorage) return;
  if (busy) return void (due = true);
  busy = true;
  problem = "";
  try {
    await exchange();
  } catch (error) {
    if (!(error instanceof Problem)) console.error("sync", error);
    problem = error instanceof Problem ? error.message : "Something went wrong in this browser.";
  }
  busy = false;
  if (due) soon();
  due = false;
  if (data.vault) tell(problem, `Synced at ${new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}.`);
}

function tell(problem, state = "") {
  const text = problem ? `Not synced. ${problem}` : state;
  if (line.textContent === text) return;
  line.textContent = text;
  if (problem) line.setAttribute("role", "alert");
  else line.removeAttribute("role");
}

function begin() {
  if (!window.duoserveStorage) return setTimeout(begin, 20); // the page's other component brings it
  window.duoserveStorage.addEventListener("change", () => data.vault && soon());
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && run());
  setInterval(() => document.visibilityState === "visible" && run(), EVERY);
  run();
}
begin();

function receive(passed) {
  const before = data.vault;
  data = passed.data;
  if (!line || !passed.parentElement.contains(line)) {
    const shown = line?.textContent ?? "";
    line = document.createElement("p");
    line.className = "synced";
    line.textContent = data.vault ? shown : "";
    passed.parentElement.append(line);
  }
  if (!data.vault) return tell(data.problem);
  if (before === data.vault) return;
  tell("", "Syncing …");
  run();
}
