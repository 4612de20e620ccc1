// Copies the Markdown source of a message. The clipboard API exists only on HTTPS and localhost; elsewhere the old
// way, with a selection, still works.
async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.style.cssText = "position:fixed;opacity:0";
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export default function ({ data, parentElement }) {
  const button = parentElement.querySelector("button");
  button.setAttribute("aria-label", data.label);
  button.title = data.label;
  button.onclick = async () => {
    await copy(data.text);
    button.classList.add("done");
    button.querySelector("span").textContent = "Copied";
    setTimeout(() => {
      button.classList.remove("done");
      button.querySelector("span").textContent = "Copy";
    }, 1500);
  };
}
