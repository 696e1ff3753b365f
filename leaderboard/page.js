"use strict";
// Builds the page from the JSON beside it, sorts, filters, and shows replies side by side. What is shown stands behind the #
// of the address, so that a link carries it: #q=prefix&verdict=better&sort=KEY:delta:desc&ex=KEY:3.
// Data reach the document through textContent and attributes set by name alone, never as markup.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const main = document.getElementById("content");
  const query = document.getElementById("q");
  const verdict = document.getElementById("verdict");
  const count = document.getElementById("count");
  const state = { q: "", verdict: "", sort: {}, ex: {} };
  const parts = []; // per group: what has to be drawn again

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    for (const child of children) {
      if (child !== null && child !== undefined) node.append(child.nodeType ? child : String(child));
    }
    return node;
  }

  // A name as nodes that may break after an underscore, a dot or an equals sign; its text stays as it is.
  function named(text) {
    return String(text).split(/(?<=[_.=])/).flatMap((part, i) => (i ? [make("wbr"), part] : [part]));
  }

  const whole = (value) => value.toLocaleString("en-US");

  // Which columns there are; `text` aligns left, `up`: the first click sorts upwards, `more`: not on a phone, `hint`: a
  // tooltip. A row's cell is [text, sorted by].
  const COLUMNS = [
    { key: "rank", head: "rank", up: true, hint: "Shared where no pairwise interval separates; in brackets what all pairs leave possible" },
    { key: "method", head: "method", text: true, up: true },
    { key: "score", head: "score" },
    { key: "se", head: "s.e.", more: true, hint: "Standard error of the score, personas as clusters" },
    { key: "delta", head: "delta", hint: "Method minus baseline" },
    { key: "ci", head: "95\u00a0%\u00a0interval", more: true, hint: "Of the difference, simultaneous over the section's methods" },
    { key: "verdict", head: "verdict", text: true, up: true },
    { key: "p", head: "p\u00a0adj.", up: true, more: true, hint: "Adjusted for all methods of the section" },
    { key: "improved", head: "improved", more: true, hint: "Share of the personas whose mean is better than under the baseline" },
    { key: "seeds", head: "seeds", more: true },
    { key: "unseen", head: "unseen", more: true, hint: "Score with personas that were held out of all training" },
    { key: "parameters", head: "parameters", more: true, hint: "Trained, with those of what the method stands on" },
    { key: "fit", head: "fit\u00a0s", more: true, hint: "Seconds of all fits, with those of what the method stands on" },
    { key: "flags", head: "flags", text: true, more: true },
  ];
  const textOf = (row, key) => (row.cells[key] ? row.cells[key][0] : "");
  const valueOf = (row, key) => (row.cells[key] ? row.cells[key][1] : null);

  // ---- the address ----

  function pairsOf(text) {
    const found = {};
    for (const item of text) {
      const [key, ...rest] = item.split(":");
      if (rest.length) found[key] = rest.join(":");
    }
    return found;
  }

  function readAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    state.q = given.get("q") || "";
    state.verdict = given.get("verdict") || "";
    state.sort = pairsOf(given.getAll("sort"));
    state.ex = pairsOf(given.getAll("ex"));
  }

  function writeAddress() {
    const given = new URLSearchParams();
    if (state.q) given.set("q", state.q);
    if (state.verdict) given.set("verdict", state.verdict);
    for (const [key, value] of Object.entries(state.sort)) given.append("sort", key + ":" + value);
    for (const [key, value] of Object.entries(state.ex)) given.append("ex", key + ":" + value);
    const text = given.toString();
    history.replaceState(null, "", text ? "#" + text : location.href.split("#")[0]);
  }

  // ---- tables ----

  function wanted(row) {
    if (state.verdict && textOf(row, "verdict") !== state.verdict) return false;
    const names = [textOf(row, "method"), ...row.flags].join("\n").toLowerCase();
    return names.includes(state.q.trim().toLowerCase());
  }

  function sorted(group) {
    let [key, direction] = (state.sort[group.key] || "").split(":");
    if (!COLUMNS.some((c) => c.key === key)) [key, direction] = ["score", group.higher_is_better ? "desc" : "asc"];
    const sign = direction === "desc" ? -1 : 1;
    const rank = (row) => valueOf(row, "rank") || 0;
    return group.rows.slice().sort((a, b) => {
      const x = valueOf(a, key), y = valueOf(b, key);
      if (x === null || y === null) return (x === null) - (y === null) || rank(a) - rank(b); // empty cells last, either way
      return sign * (x < y ? -1 : x > y ? 1 : 0) || rank(a) - rank(b);
    });
  }

  // What a tooltip says of a cell; all of it stands below the table, too.
  function hintOf(key, row) {
    if (key === "method") return row.kind === "other" ? row.words : row.runs.join(", ");
    if (key === "verdict") return row.words;
    if (key === "parameters" || key === "fit") return row.cost;
    return "";
  }

  function cellOf(c, row) {
    const verdict = textOf(row, "verdict");
    const classes = [c.key === "method" ? "name" : "", c.text ? "text" : "", c.more ? "more" : "", c.key === "flags" ? "wrap" : ""];
    if (c.key === "verdict" && ["better", "worse"].includes(verdict)) classes.push(verdict);
    return make("td", { class: classes.filter(Boolean).join(" "), title: hintOf(c.key, row) || null }, ...(c.key === "method" ? named(textOf(row, c.key)) : [textOf(row, c.key)]));
  }

  function drawTable(part) {
    const { group, body, heads } = part;
    const [key, direction] = (state.sort[group.key] || "").split(":");
    for (const [name, head] of Object.entries(heads)) {
      head.setAttribute("aria-sort", name !== key ? "none" : direction === "desc" ? "descending" : "ascending");
    }
    const rows = sorted(group).filter(wanted);
    const drawn = rows.map((row) => make("tr", { class: row.kind }, ...part.columns.map((c) => cellOf(c, row))));
    if (!rows.length) drawn.push(make("tr", {}, make("td", { class: "text empty", colspan: part.columns.length }, "No row fits the filter.")));
    body.replaceChildren(...drawn);
    return rows.filter((row) => row.kind !== "other").length;
  }

  function sortBy(group, c) {
    const [key, direction] = (state.sort[group.key] || "").split(":");
    const first = c.up ? "asc" : "desc";
    if (key !== c.key) state.sort[group.key] = c.key + ":" + first;
    else if (direction === first) state.sort[group.key] = c.key + ":" + (first === "asc" ? "desc" : "asc");
    else delete state.sort[group.key];
    changed();
  }

  function tableOf(part) {
    const { group } = part;
    part.columns = COLUMNS.filter((c) => group.rows.some((row) => textOf(row, c.key) !== ""));
    part.heads = {};
    const heads = part.columns.map((c) => {
      const button = make("button", { type: "button", title: c.hint || null }, c.head);
      button.addEventListener("click", () => sortBy(group, c));
      part.heads[c.key] = make("th", { scope: "col", class: [c.text ? "text" : "", c.more ? "more" : ""].join(" ").trim(), "data-key": c.key }, button);
      return part.heads[c.key];
    });
    part.body = make("tbody");
    const table = make("table", { id: "table-" + group.key }, make("thead", {}, make("tr", {}, ...heads)), part.body);
    return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of " + group.title }, table);
  }

  // Rows in words: what tooltips say, for those who cannot hover.
  function wordsOf(group) {
    const list = make("dl");
    for (const row of group.rows) {
      const said = [row.words, row.cost, row.runs.length ? "runs " + row.runs.join(", ") : ""].filter(Boolean).join("; ");
      if (said) list.append(make("dt", {}, textOf(row, "method")), make("dd", {}, said + "."));
    }
    return make("details", {}, make("summary", {}, "The rows in words: verdicts, costs, runs"), list);
  }

  // ---- replies side by side ----

  // Which words of `text` also stand in `other`, in one order: the longest common subsequence.
  function common(words, others) {
    const lengths = Array.from({ length: words.length + 1 }, () => new Uint16Array(others.length + 1));
    for (let i = words.length - 1; i >= 0; i--) {
      for (let j = others.length - 1; j >= 0; j--) {
        lengths[i][j] = words[i] === others[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
      }
    }
    const shared = words.map(() => false);
    for (let i = 0, j = 0; i < words.length && j < others.length; ) {
      if (words[i] === others[j]) { shared[i] = true; i++; j++; }
      else if (lengths[i + 1][j] >= lengths[i][j + 1]) i++;
      else j++;
    }
    return shared;
  }

  // A paragraph of the text, with marks on the words that `other` does not have there.
  function marked(text, other) {
    const node = make("p", { dir: "auto" });
    const parts = text.split(/(\s+)/);
    const words = parts.filter((_, i) => i % 2 === 0);
    const shared = other === null ? words.map(() => true) : common(words, other.split(/\s+/));
    parts.forEach((part, i) => {
      if (part === "") return;
      node.append(i % 2 === 1 || shared[i / 2] ? part : make("mark", {}, part));
    });
    return node;
  }

  function replyCard(group, reply, base, reference) {
    const row = group.rows[reply.line];
    const same = base && reply !== base && reply.text === base.text;
    const facts = [];
    if (reply.score !== null) facts.push("scored " + reply.score);
    if (same) facts.push("the same words as " + group.baseline);
    if (reply.left_out) facts.push(whole(reply.left_out) + " more characters left out");
    const beside = reference !== null ? reference.text : base && reply !== base ? base.text : null;
    return make(
      "article", { class: "reply" + (same ? " same" : "") },
      make("h4", {}, textOf(row, "method") + (row.kind === "baseline" ? " (baseline)" : "")),
      reply.text === "" ? make("p", {}, "(empty reply)") : marked(reply.text, beside),
      facts.length ? make("p", { class: "facts" }, facts.join(" · ")) : null,
    );
  }

  function givenCard(title, given, more) {
    if (given === null) return "";
    return make(
      "article", { class: "reply given" },
      make("h4", {}, title),
      make("p", { dir: "auto" }, given.text),
      given.left_out ? make("p", { class: "facts" }, whole(given.left_out) + " " + more + " characters left out") : null,
    );
  }

  function drawExample(part) {
    if (!part.picker) return;
    const { group, picker, shown } = part;
    const all = group.examples.chosen;
    const asked = Number.parseInt(state.ex[group.key] || "1", 10);
    const place = Math.min(Math.max(Number.isNaN(asked) ? 1 : asked, 1), all.length) - 1;
    const example = all[place];
    const own = all.map((one, i) => [one, i]).filter(([one]) => one.persona === example.persona);
    part.people.value = String(all.findIndex((one) => one.persona === example.persona) + 1);
    picker.replaceChildren(...own.map(([one, i], k) => make("option", { value: i + 1 }, k + 1 + " of " + own.length + ": " + one.id)));
    picker.value = String(place + 1);
    part.before.disabled = place === 0;
    part.after.disabled = place === all.length - 1;
    const base = example.replies.find((reply) => group.rows[reply.line].kind === "baseline");
    shown.replaceChildren(
      make(
        "div", { class: "replies" },
        givenCard("Prompt", example.prompt, "earlier"),
        givenCard("Reference: the reply that the person got", example.reference, "more"),
        ...example.replies.map((reply) => replyCard(group, reply, base, example.reference)),
      ),
    );
  }

  function pick(group, place) {
    state.ex[group.key] = String(place);
    changed();
  }

  function examplesOf(part) {
    const { group } = part;
    const { chosen, of, without } = group.examples;
    const missing = without.length ? " Without replies here: " + without.join(", ") + "." : "";
    const box = make("section", { class: "examples" }, make("h3", {}, "Replies side by side"));
    if (!chosen.length) {
      box.append(make("p", { class: "note" }, "None on this page. " + data.words));
      return box;
    }
    const choose = (event) => pick(group, Number(event.target.value));
    part.people = make("select", { id: "who-" + group.key });
    for (const persona of new Set(chosen.map((example) => example.persona))) {
      part.people.append(make("option", { value: chosen.findIndex((example) => example.persona === persona) + 1 }, persona));
    }
    part.picker = make("select", { id: "ex-" + group.key });
    for (const box of [part.people, part.picker]) box.addEventListener("change", choose);
    part.before = make("button", { type: "button" }, "← previous");
    part.after = make("button", { type: "button" }, "next →");
    part.before.addEventListener("click", () => pick(group, Number(part.picker.value) - 1));
    part.after.addEventListener("click", () => pick(group, Number(part.picker.value) + 1));
    part.shown = make("div", { "aria-live": "polite" });
    const texts = chosen.some((example) => example.prompt === null) ? " Prompts and references are not shown: these runs keep their hashes, not their texts." : "";
    const words = chosen.length + " of " + whole(of) + " examples, " + data.rule + "; of several seeds the first.";
    box.append(
      make("p", { class: "note" }, words + " Scores are those of the reply alone. Marked are words that " + (texts ? "the baseline's reply" : "the reference") + " does not have there." + texts + missing + (missing ? " " + data.words : "")),
      make("div", { class: "picker" }, make("label", {}, "Persona ", part.people), make("label", {}, "Example ", part.picker), part.before, part.after),
      part.shown,
    );
    return box;
  }

  // ---- a group ----

  function aboutText(group) {
    const unit = { pt: "points", raw: "its own unit" }[group.unit] || group.unit;
    let text = group.facts + ": " + whole(group.n_personas) + " personas, " + whole(group.n_replies) + " replies; ";
    text += group.backbone === null ? "scores imported from files. " : "backbone " + group.backbone + ". ";
    text += "Decided by " + group.metric + " in " + unit + (group.higher_is_better ? " (higher is better): " : " (lower is better): ") + group.summary + ". ";
    text += "Estimand: " + group.estimand + ". ";
    text += group.baseline === null ? "No run of the baseline is stored, so there are no differences and no verdicts." : "Differences are method minus " + group.baseline + ", paired reply by reply.";
    return text;
  }

  function plotOf(group, plot, first) {
    const image = make("img", {
      alt: plot.alt, width: plot.width, height: plot.height, loading: first ? "eager" : "lazy",
      src: "data:image/svg+xml;charset=utf-8," + encodeURIComponent(plot.svg),
    });
    return make("figure", {}, make("div", { tabindex: 0, role: "region", "aria-label": (first ? "Opening plot: " : plot.title + ": ") + group.title }, image), make("figcaption", {}, plot.caption));
  }

  // The page opens with one section's finding and its plot, then the contents.
  function drawOpening() {
    if (data.headline) {
      const group = data.groups[data.headline.place];
      const forest = group.plots.find((plot) => plot.kind === "forest");
      const link = make("a", { href: "#group-" + group.key }, group.title);
      document.getElementById("headline").append(
        make("p", { class: "headline" }, data.headline.sentences.join(" ")),
        make("p", { class: "note" }, link),
        ...(forest ? [plotOf(group, forest, true)] : []),
      );
    }
    const items = data.groups.map((group) => make("li", {}, make("a", { href: "#group-" + group.key }, group.title), group.finding ? ": " + group.finding : ""));
    if (items.length) document.getElementById("contents").append(make("h2", {}, "Contents"), make("ol", {}, ...items));
  }

  function sectionOf(group) {
    const part = { group };
    parts.push(part);
    const section = make("section", { id: "group-" + group.key }, make("h2", {}, group.place + ". " + group.title), make("p", {}, aboutText(group)), tableOf(part), wordsOf(group));
    if (group.caveat) {
      let text = "Published: " + group.reference + ". A comparison with it " + group.caveat + ".";
      if (group.reference_note) text += " " + group.reference_note[0].toUpperCase() + group.reference_note.slice(1) + ".";
      section.append(make("p", { class: "note" }, text));
    }
    const meanings = Object.entries(group.glossary);
    if (meanings.length) {
      const list = make("dl");
      for (const [name, meaning] of meanings) list.append(make("dt", {}, name), make("dd", {}, meaning));
      section.append(make("details", {}, make("summary", {}, "What the flags mean"), list));
    }
    for (const plot of group.plots) section.append(plotOf(group, plot, false));
    section.append(examplesOf(part));
    return section;
  }

  function plainTable(title, note, heads, rows) {
    const head = make("tr", {}, ...heads.map((h) => make("th", { scope: "col", class: "text plain" }, h)));
    const body = rows.map((row) => make("tr", {}, ...row.map((cell, i) => make("td", { class: i === 0 ? "name" : "text wrap" }, ...(i === 0 ? named(cell) : [cell])))));
    const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
    return make("section", {}, make("h2", {}, title), make("p", {}, note), make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, table));
  }

  // ---- all of it ----

  function draw() {
    query.value = state.q;
    verdict.value = state.verdict;
    let rows = 0;
    for (const part of parts) {
      rows += drawTable(part);
      drawExample(part);
    }
    count.textContent = rows + (rows === 1 ? " row" : " rows");
  }

  function changed() {
    writeAddress();
    draw();
  }

  if (!data.groups.length) main.append(make("p", {}, "No complete runs yet: harness run makes one."));
  drawOpening();
  for (const group of data.groups) main.append(sectionOf(group));
  if (data.outsiders.length) {
    const rows = data.outsiders.map((x) => [x.method, x.benchmark, x.reason, x.runs.join(", ")]);
    main.append(plainTable("Not comparable", "Not ranked, in the order of their names.", ["method", "benchmark", "why it is not compared", "runs"], rows));
  }
  if (data.unfinished.length) {
    main.append(plainTable("Not in the tables", "Runs without a result.", ["run", "status", "reason"], data.unfinished.map((x) => [x.run, x.status, x.reason])));
  }
  main.append(make("p", { class: "note" }, "Costs, further metrics, protocol and the command behind every row: ", make("a", { href: "./" + encodeURIComponent(data.readme) }, data.readme), "."));
  const kinds = new Set(data.groups.flatMap((group) => group.rows.map((row) => textOf(row, "verdict")).filter(Boolean)));
  for (const kind of [...kinds].sort()) verdict.append(make("option", { value: kind }, kind));
  query.addEventListener("input", () => { state.q = query.value; changed(); });
  verdict.addEventListener("change", () => { state.verdict = verdict.value; changed(); });
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("reset").addEventListener("click", () => {
    Object.assign(state, { q: "", verdict: "", sort: {} });
    changed();
  });
  // #group-KEY is a place on the page, and no state.
  const target = () => location.hash.startsWith("#group-") && document.getElementById(location.hash.slice(1));
  window.addEventListener("hashchange", () => { if (!target()) { readAddress(); draw(); } });
  readAddress();
  draw();
  if (target()) target().scrollIntoView();
})();
