
// The end of each component's script. Streamlit calls it for each change of its data, after an import() of its own, and
// the first imports may end in any order: what is older than the last, by the time that `components.py` adds, is ignored.
const newest = new Map(); // by the element that a component has on the page

export default function (passed) {
  if (passed.data.at < newest.get(passed.key)) return;
  newest.set(passed.key, passed.data.at);
  return receive(passed);
}
