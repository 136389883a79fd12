"use strict";
const list = document.querySelector(".queue");
if (list) {
  const items = Array.from(list.children);
  const controls = document.createElement("form");
  controls.className = "controls";
  controls.addEventListener("submit", (event) => event.preventDefault());
  const control = (words, element) => {
    const label = document.createElement("label");
    label.append(words, element);
    controls.append(label);
    element.addEventListener("input", show);
    return element;
  };
  const choice = (pairs) => {
    const select = document.createElement("select");
    for (const [value, words] of pairs) select.add(new Option(words, value));
    return select;
  };
  const values = (name) => [["", "all"], ...[...new Set(items.map((item) => item.dataset[name]))].sort().map((each) => [each, each])];
  const text = control("Key or words", document.createElement("input"));
  text.type = "search";
  const decision = control("Decision", choice(values("decision")));
  const rule = control("Rule", choice(values("rule")));
  const order = control("Order", choice([["rank", "rank"], ["key", "key"], ["duration", "longest first"]]));
  const said = document.createElement("p");
  said.setAttribute("role", "status");
  const orders = {
    rank: (one, other) => one.dataset.rank - other.dataset.rank,
    key: (one, other) => one.dataset.key.localeCompare(other.dataset.key),
    duration: (one, other) => other.dataset.duration - one.dataset.duration,
  };
  function show() {
    const wanted = text.value.toLowerCase();
    let shown = 0;
    for (const item of items) {
      const fits = (!decision.value || item.dataset.decision === decision.value) && (!rule.value || item.dataset.rule === rule.value)
        && item.textContent.toLowerCase().includes(wanted);
      item.hidden = !fits;
      shown += fits;
    }
    list.append(...items.sort(orders[order.value]));
    said.textContent = `${shown} of ${items.length} objects are shown.`;
  }
  list.before(controls, said);
  show();
}
