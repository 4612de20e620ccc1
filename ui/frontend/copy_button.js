// Copies the Markdown source of a message. `page.js` provides the clipboard where the browser does not.
export default function ({ data, parentElement }) {
  const button = parentElement.querySelector("button");
  const say = (text) => {
    button.querySelector("span").textContent = text;
    setTimeout(() => (button.querySelector("span").textContent = "Copy"), 1500);
  };
  button.setAttribute("aria-label", data.label);
  button.title = data.label;
  button.onclick = () => navigator.clipboard.writeText(data.text).then(() => say("Copied"), () => say("Not copied"));
}
