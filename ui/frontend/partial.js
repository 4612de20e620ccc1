// Keeps an answer as far as it has grown, in case that its page goes away. storage.js reads it and, when the whole
// answer is stored, deletes it. Losing it is no reason to stop the answer.
const PREFERENCES = "duoserve.preferences";

export default function ({ data }) {
  try {
    const keep = JSON.parse(localStorage.getItem(PREFERENCES))?.keep;
    const place = keep === "tab" ? sessionStorage : localStorage;
    place.setItem(`duoserve.partial.${data.conversation}`, JSON.stringify([data.answer, data.message]));
  } catch (error) {
    console.warn("partial answer", error);
  }
}
