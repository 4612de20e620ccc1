// Writes what the browser's storage (storage.js) holds to a file, without the server. Input: {format, votes}: the format
// of conversations, and whether only votes on answers of two models are wanted.
async function save(name, begin, end, partsOf) {
  const parts = [];
  await window.duoserveStorage.each((conversation) => void parts.push(...partsOf(conversation)));
  const texts = parts.map((part, at) => `${at ? ",\n" : ""}${JSON.stringify(part, null, 1)}`);
  const file = new Blob([begin, ...texts, end], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// For `./run eval votes`.
function* votes({ messages }) {
  for (const [at, { vote, beside, text, model }] of messages.entries()) {
    if (!vote || !beside) continue;
    const better = { this: model, beside: beside.model }[vote] ?? vote;
    yield { question: messages[at - 1]?.text ?? "", models: [model, beside.model], answers: [text, beside.text], better };
  }
}

function receive({ data, parentElement }) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "bordered";
  button.textContent = data.votes ? "↓ Export votes" : "↓ Export all as JSON";
  button.onclick = () => data.votes
    ? save("duoserve-votes.json", '{"votes": [\n', "\n]}\n", votes)
    : save("duoserve-conversations.json", `{"format": ${data.format}, "conversations": [\n`, "\n]}\n", (each) => [each]);
  parentElement.replaceChildren(button);
}
