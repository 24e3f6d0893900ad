// Tables sort by a column and filter by words; without this script they are as the page has them.
(() => {
  "use strict";
  const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const NUMBER = /^\(?([−+-]?)(∞|(?:\d[\d,]*)?\.?\d+(?:e[+-]?\d+)?)(?: ± [^)]*\))?(?: × 10(⁻?)([⁰¹²³⁴⁵⁶⁷⁸⁹]+))?(?!\w)/;
  const MISSING = new Set(["", "–", "nan", "none"]);
  const byText = new Intl.Collator("en", { numeric: true });

  // Returns the number that a text starts with, such as the mean of "0.05 ± 0.02" and of "(5.0 ± 2.0) × 10⁻⁹"; NaN if there is none.
  function leadingNumber(text) {
    const found = NUMBER.exec(text);
    if (!found) return NaN;
    const [, sign, digits, negative, power] = found;
    const exponent = [...(power || "")].map((digit) => SUPERSCRIPTS.indexOf(digit)).join("") || "0";
    const value = digits === "∞" ? Infinity : Number(digits.replaceAll(",", "")) * 10 ** Number((negative ? "-" : "") + exponent);
    return sign === "−" || sign === "-" ? -value : value;
  }

  // Returns the rows in the order of a column: by number if all its cells start with one. Missing values are last.
  function sortRows(rows, column, direction) {
    const texts = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
    const present = rows.filter((row) => !MISSING.has(texts.get(row)));
    const missing = rows.filter((row) => MISSING.has(texts.get(row)));
    const numbers = new Map(present.map((row) => [row, leadingNumber(texts.get(row))]));
    const numeric = present.every((row) => !Number.isNaN(numbers.get(row)));
    const compare = numeric
      ? (a, b) => Math.sign(numbers.get(a) - numbers.get(b)) || 0
      : (a, b) => byText.compare(texts.get(a), texts.get(b));
    return [...present.sort((a, b) => direction * compare(a, b)), ...missing];
  }

  function element(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  function enhance(table) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 2 || table.dataset.enhanced) return;
    table.dataset.enhanced = "yes";
    const initial = Number(table.dataset.shown || rows.length);
    const total = Number(table.dataset.total || rows.length);
    const state = { column: -1, direction: 1, words: [], all: false };
    const headings = [...table.tHead.rows[0].cells];
    const status = element("span", { className: "count" });
    status.setAttribute("role", "status");
    const more = element("button", { type: "button" });
    const filter = element("input", { type: "search", autocomplete: "off", spellcheck: false });
    const controls = element("div", { className: "controls" });
    controls.append(element("label", {}, "Filter rows: ", filter), status);
    if (rows.length > initial) controls.append(more);

    function update() {
      const sorted = state.column < 0 ? rows : sortRows(rows, state.column, state.direction);
      const matching = sorted.filter((row) => {
        const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
        return state.words.every((word) => text.includes(word));
      });
      const visible = new Set(state.all ? matching : matching.slice(0, initial));
      for (const row of rows) {
        row.classList.remove("beyond");
        row.hidden = !visible.has(row);
      }
      table.tBodies[0].append(...sorted);
      headings.forEach((heading, index) => {
        const order = state.direction > 0 ? "ascending" : "descending";
        heading.setAttribute("aria-sort", index === state.column ? order : "none");
      });
      const of = state.words.length ? `${matching.length} matching` : `${rows.length}`;
      status.textContent = visible.size === total ? `${total} rows` : `${visible.size} of ${of} rows`;
      if (rows.length < total) status.textContent += ` (the page has the first ${rows.length} of ${total})`;
      more.textContent = state.all ? `Show ${initial} rows` : `Show all ${rows.length} rows`;
      more.setAttribute("aria-expanded", String(state.all));
    }

    headings.forEach((heading, index) => {
      const button = element("button", { type: "button", className: "sort", title: "Sort by this column" });
      button.append(...heading.childNodes);
      // A column without a heading, such as the names of rows, still has an order.
      if (!button.textContent.trim()) button.setAttribute("aria-label", "Sort by the first column");
      button.addEventListener("click", () => {
        // Ascending, descending, and then as the page has the rows.
        if (state.column !== index) Object.assign(state, { column: index, direction: 1 });
        else if (state.direction > 0) state.direction = -1;
        else Object.assign(state, { column: -1, direction: 1 });
        update();
      });
      heading.append(button);
    });
    filter.addEventListener("input", () => {
      state.words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      update();
    });
    more.addEventListener("click", () => {
      state.all = !state.all;
      update();
    });
    if (rows.length > 5) table.closest(".wide").before(controls); // fewer rows are seen at a glance
    update();
  }

  window.enhanceTable = enhance;
  document.querySelectorAll(".wide > table").forEach(enhance);
})();
