// Writes all conversations of the browser's storage (storage.js) to a file, without the server. Input: {format}.
async function save(format) {
  const parts = [];
  await window.duoserveStorage.each((conversation) => void parts.push(`${parts.length ? ",\n" : ""}${JSON.stringify(conversation, null, 1)}`));
  const file = new Blob([`{"format": ${format}, "conversations": [\n`, ...parts, "\n]}\n"], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = "duoserve-conversations.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export default function ({ data, parentElement }) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "stop";
  button.textContent = "↓ Export all as JSON";
  button.onclick = () => save(data.format);
  parentElement.replaceChildren(button);
}
