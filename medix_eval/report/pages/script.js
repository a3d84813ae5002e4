"use strict";
/* Text of a model or a judge is only ever set as text, never as markup. */
(() => {
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children.filter((child) => child !== null));
    return element;
  };

  /* Tables that sort by a click on their head. */
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (head.classList.contains("plain")) return;
      const button = make("button", { type: "button", className: "sort" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const numeric = head.classList.contains("n");
        const value = (row) => {
          const cell = row.cells[column];
          return numeric ? Number(cell.dataset.value ?? cell.textContent) : cell.textContent;
        };
        const order = (a, b) => (numeric ? value(a) - value(b) : value(a).localeCompare(value(b)));
        body.append(...[...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b))));
      });
    });
  }

  /* Paper cannot be unfolded. */
  addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("main > section > details:has(table)")) folded.open = true;
  });

  const browser = document.querySelector(".browser");
  if (browser === null) return;

  /* The columns of one row of the index. */
  const [TASK, ROW, OUTCOME, DISAGREEMENT, TAGS, ID, SNIPPET] = [0, 1, 2, 3, 4, 5, 6];
  const SHOWN_AT_ONCE = 50;
  const LONGEST = 8000;
  const KEPT_CHUNKS = 12;

  const form = browser.querySelector("form");
  const list = browser.querySelector(".list");
  const body = browser.querySelector(".sample .body");
  const status = browser.querySelector(".count");
  const pages = browser.querySelector(".pages");
  const words = (name) => name.replaceAll("_", " ");
  const percent = (score) => (score === null ? "–" : (100 * score).toFixed(1));

  const unpack = async (id) => {
    const letters = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(letters.length);
    for (let at = 0; at < letters.length; at += 1) bytes[at] = letters.charCodeAt(at);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  };

  const kept = new Map();
  const chunk = (number) => {
    const found = kept.get(number) ?? unpack(`chunk-${number}`);
    kept.delete(number);
    kept.set(number, found);
    if (kept.size > KEPT_CHUNKS) kept.delete(kept.keys().next().value);
    return found;
  };

  let index = null;
  let order = []; /* every sample, by task and row */
  let found = []; /* those that the filters let through */
  let current = -1; /* position in `found` */
  let search = 0; /* the newest search; an older one stops */

  const chunkOf = (sample) => {
    let low = 0;
    let high = index.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (index.starts[middle] <= sample) low = middle;
      else high = middle - 1;
    }
    return low;
  };

  /* What a sample is filed under: an outcome, or in a comparison who gained or lost. */
  const outcomeOf = (name) =>
    make("span", { className: `outcome is-${name.split(" ").pop()}`, textContent: words(name) });

  const showList = () => {
    const page = Math.max(0, Math.floor(current / SHOWN_AT_ONCE));
    const hadFocus = list.contains(document.activeElement);
    const first = page * SHOWN_AT_ONCE;
    const shown = found.slice(first, first + SHOWN_AT_ONCE);
    list.start = first + 1;
    list.replaceChildren(
      ...shown.map((sample, at) => {
        const row = index.rows[sample];
        const name = `${index.tasks[row[TASK]]} · row ${row[ROW]}`;
        const button = make(
          "button",
          { type: "button" },
          outcomeOf(index.outcomes[row[OUTCOME]]),
          make("span", { className: "snippet", textContent: row[SNIPPET] || row[ID] }),
          make("small", { textContent: name }),
        );
        button.addEventListener("click", () => choose(first + at));
        if (first + at === current) button.setAttribute("aria-current", "true");
        return make("li", {}, button);
      }),
    );
    const mark = list.querySelector("[aria-current]");
    if (mark !== null) {
      const item = mark.parentElement;
      const top = item.offsetTop - list.offsetTop;
      if (top < list.scrollTop) list.scrollTop = top;
      const bottom = top + item.offsetHeight - list.clientHeight;
      if (bottom > list.scrollTop) list.scrollTop = bottom;
      if (hadFocus) mark.focus({ preventScroll: true });
    }
    const last = Math.ceil(found.length / SHOWN_AT_ONCE);
    pages.hidden = last < 2;
    pages.querySelector("span").textContent = `Page ${page + 1} of ${last}`;
  };

  const longText = (text) => {
    const block = make("pre", { textContent: text.slice(0, LONGEST) });
    if (text.length <= LONGEST) return [block];
    const label = `Show all ${text.length.toLocaleString("en")} characters`;
    const button = make("button", { type: "button", textContent: label });
    button.addEventListener("click", () => {
      block.textContent = text;
      button.remove();
    });
    return [block, button];
  };

  const part = (name, ...children) =>
    make("section", {}, make("h4", { textContent: name }), ...children);

  const folded = (name, text) =>
    make("details", {}, make("summary", { textContent: name }), ...longText(text));

  const facts = (pairs) =>
    make(
      "dl",
      { className: "facts" },
      ...pairs.flatMap(([name, value]) => [
        make("dt", { textContent: name }),
        make("dd", { textContent: value }),
      ]),
    );

  const picture = (hash, number) => {
    const data = document.getElementById(`image-${hash}`);
    if (data !== null)
      return make("img", { src: data.textContent, alt: `Image ${number + 1} of this question` });
    return make("p", { className: "note", textContent: `Image not in this file: sha256 ${hash}` });
  };

  const optionsOf = (sample) =>
    make(
      "ol",
      { className: "options" },
      ...sample.options.map((option) => {
        const right = option === sample.reference;
        const item = make("li", { textContent: option, className: right ? "right" : "" });
        if (right) item.append(make("em", { textContent: " reference" }));
        return item;
      }),
    );

  const voteOf = (vote) => {
    const said = vote.points === null ? "no grade" : `${vote.points}`;
    const where = vote.cached ? `${vote.prompt}, from the cache` : vote.prompt;
    const head = make("p", {}, make("strong", { textContent: said }), ` · ${vote.judge} · ${where}`);
    const reply = vote.reply === null ? [] : longText(vote.reply);
    const failure = vote.failure === null ? [] : [make("p", { textContent: vote.failure })];
    const listed = (item) => item && typeof item === "object" ? Object.values(item).filter((one) => one && one !== "none").join(", ") : item;
    const told = Object.entries(vote.details)
      .map(([name, value]) => [name, Array.isArray(value) ? value.map(listed).filter((one) => one).join("; ") : value])
      .filter(([, value]) => value)
      .map(([name, value]) => make("p", {}, make("em", { textContent: `${name}: ` }), `${value}`));
    const raw = told.length ? [make("details", {}, make("summary", { textContent: "The reply as it came" }), ...reply)] : reply;
    return make("div", { className: "vote" }, head, ...told, ...raw, ...failure);
  };

  const questionParts = (sample) => [
    sample.images.length ? part("Image", ...sample.images.map(picture)) : null,
    part("Prompt", ...longText(sample.prompt)),
    sample.options.length ? part("Options", optionsOf(sample)) : null,
    part("Reference", ...longText(sample.reference)),
    Object.keys(sample.facts).length ? part("Facts", facts(Object.entries(sample.facts))) : null,
  ];

  const completionParts = (answer) => [
    answer.failure === null ? null : part("Failure", make("p", { textContent: answer.failure })),
    answer.reason === "" || answer.reason === answer.failure ? null : part("Reason", make("p", { textContent: answer.reason })),
    part(
      "Completion",
      answer.thinking ? folded(`Reasoning, ${answer.thinking.length.toLocaleString("en")} character${answer.thinking.length === 1 ? "" : "s"}`, answer.thinking) : null,
      ...longText(answer.said.trim() || "(nothing)"),
    ),
    answer.answer === null ? null : part("Answer that was judged", ...longText(answer.answer || "(empty)")),
  ];

  const answerOf = (answer, hidden) => {
    const about = [["Score", percent(answer.score)]];
    if (answer.votes.length) about.push(["By the judge", percent(answer.judge_score)]);
    if (!hidden) about.push(["Finish", answer.finish ?? "–"], ["Tokens", `${answer.tokens ?? "–"}`], ["Seconds", `${answer.seconds}`]);
    const rule = answer.rule;
    const parts = [
      answer.name ? make("h3", {}, `${answer.name} `, outcomeOf(answer.outcome)) : null,
      ...(hidden ? [] : completionParts(answer)),
      answer.votes.length ? part("Votes of the judge", ...answer.votes.map(voteOf)) : null,
      rule === null ? null : part("Rules", make("p", { textContent: `${percent(rule.score)}, by the rule “${words(rule.rule)}”` })),
      facts(about),
    ];
    return make("div", {}, ...parts.filter((item) => item !== null));
  };

  const showSample = async () => {
    const number = found[current];
    if (number === undefined) {
      body.replaceChildren(make("p", { textContent: "No sample fits these filters." }));
      return;
    }
    const at = chunkOf(number);
    const sample = (await chunk(at))[number - index.starts[at]];
    if (found[current] !== number) return; /* the reader has moved on */
    const row = index.rows[number];
    const hidden = sample.prompt === undefined;
    const title = make("h3", {}, outcomeOf(index.outcomes[row[OUTCOME]]), ` ${index.tasks[row[TASK]]} `, make("small", { textContent: row[ID] }));
    const tags = row[TAGS].map((tag) => make("span", { className: "tag", textContent: words(index.tags[tag]) }));
    const note = make("p", { className: "note", textContent: "Restricted data: id and verdicts only." });
    const about = [["Row", `${row[ROW]}`], ...(hidden ? [] : Object.entries(sample.columns))];
    const answers = sample.answers.map((answer) => answerOf(answer, hidden));
    body.replaceChildren(
      title,
      ...tags,
      ...(hidden ? [note] : questionParts(sample)).filter((item) => item !== null),
      make("div", { className: answers.length > 1 ? "answers" : "" }, ...answers),
      part("About the question", facts(about)),
    );
    body.dataset.sample = row[ID];
    rememberPlace(`#sample=${encodeURIComponent(`${index.tasks[row[TASK]]}/${row[ID]}`)}`);
  };

  /* The address names the sample, so that it can be sent to somebody. Not at every key press:
     browsers slow a page down that changes its address often. */
  let place = 0;
  let moved = false;
  const rememberPlace = (hash) => {
    clearTimeout(place);
    if (moved) place = setTimeout(() => history.replaceState(null, "", hash), 400);
  };

  const choose = (position) => {
    moved = true;
    current = Math.min(Math.max(position, 0), found.length - 1);
    showList();
    say();
    showSample();
  };

  const say = (more = "") => {
    const which = found.length ? `Sample ${(current + 1).toLocaleString("en")} of ${found.length.toLocaleString("en")}` : "No sample";
    const all = found.length === order.length ? "" : ` (${order.length.toLocaleString("en")} in all)`;
    status.textContent = `${which}${all}${more}`;
  };

  const keeps = (values) => {
    const cut = values.slice.indexOf("=");
    const [column, code] = [values.slice.slice(0, cut), Number(values.slice.slice(cut + 1))];
    return (sample) => {
      const row = index.rows[sample];
      return (
        (values.task === "" || row[TASK] === Number(values.task)) &&
        (values.outcome === "" || row[OUTCOME] === Number(values.outcome)) &&
        (values.disagreement === "" || (row[DISAGREEMENT] & Number(values.disagreement)) !== 0) &&
        (values.tag === "" || row[TAGS].includes(Number(values.tag))) &&
        (values.slice === "" || index.sliced[column][sample] === code)
      );
    };
  };

  const holds = (sample, row, words) => {
    const asked = sample.prompt === undefined ? [] : [sample.prompt, sample.reference];
    const answered = sample.answers.flatMap((answer) => [answer.thinking, answer.said, answer.reason, ...answer.votes.map((vote) => vote.reply)]);
    return [row[ID], ...asked, ...answered].some((text) => text?.toLowerCase().includes(words));
  };

  /* A search reads the chunks one after the other and shows what it has found so far. */
  const find = async (candidates, words) => {
    const mine = (search += 1);
    const hits = new Set();
    const byChunk = Map.groupBy
      ? Map.groupBy(candidates, chunkOf)
      : candidates.reduce((map, sample) => map.set(chunkOf(sample), [...(map.get(chunkOf(sample)) ?? []), sample]), new Map());
    let shown = performance.now();
    let done = 0;
    const update = (more) => {
      found = candidates.filter((sample) => hits.has(sample));
      current = Math.min(Math.max(current, 0), found.length - 1);
      showList();
      say(more);
      if (found[current] !== undefined && body.dataset.sample !== index.rows[found[current]][ID]) showSample();
    };
    for (const [number, samples] of byChunk) {
      const records = kept.has(number) ? await kept.get(number) : await unpack(`chunk-${number}`);
      if (mine !== search) return;
      for (const sample of samples)
        if (holds(records[sample - index.starts[number]], index.rows[sample], words)) hits.add(sample);
      done += 1;
      if (performance.now() - shown > 250) {
        update(`, searched ${Math.round((100 * done) / byChunk.size)} %`);
        shown = performance.now();
      }
    }
    update("");
    if (!found.length) showSample();
  };

  const filter = () => {
    const values = Object.fromEntries(new FormData(form));
    const candidates = order.filter(keeps(values));
    const words = values.query.trim().toLowerCase();
    current = 0;
    if (words) {
      find(candidates, words);
      return;
    }
    search += 1;
    found = candidates;
    if (!found.length) current = -1;
    showList();
    say();
    showSample();
  };

  const fill = (name, options) => {
    const select = form.elements[name];
    select.append(...options.map(([value, text]) => make("option", { value, textContent: text })));
    select.closest("label").hidden = options.length < 2;
  };

  const fillFilters = () => {
    const used = (column) => new Set(index.rows.flatMap((row) => row[column]));
    const [outcomes, tags] = [used(OUTCOME), used(TAGS)];
    fill("task", index.tasks.map((task, at) => [at, task]));
    fill("outcome", index.outcomes.map((name, at) => [at, words(name)]).filter(([at]) => outcomes.has(at)));
    fill("tag", index.tags.map((name, at) => [at, words(name)]).filter(([at]) => tags.has(at)));
    const slices = form.elements.slice;
    for (const [column, names] of Object.entries(index.slices)) {
      const group = make("optgroup", { label: words(column) });
      group.append(...names.map((name, at) => make("option", { value: `${column}=${at}`, textContent: `${words(column)}: ${name}` })));
      slices.append(group);
    }
    slices.closest("label").hidden = slices.options.length < 2;
    form.elements.tag.closest("label").hidden = index.tags.length === 0;
    form.elements.disagreement.closest("label").hidden = !index.rows.some((row) => row[DISAGREEMENT]);
  };

  const named = () => {
    const wanted = decodeURIComponent(location.hash.split("#sample=")[1] ?? "");
    return order.findIndex((sample) => {
      const row = index.rows[sample];
      return `${index.tasks[row[TASK]]}/${row[ID]}` === wanted;
    });
  };

  const start = async () => {
    index = await unpack("index");
    const rows = index.rows;
    order = rows.map((_, at) => at).sort((a, b) => rows[a][TASK] - rows[b][TASK] || rows[a][ROW] - rows[b][ROW]);
    fillFilters();
    filter();
    const position = named();
    if (position >= 0) {
      choose(position);
      browser.scrollIntoView();
    }
  };

  let typing = 0;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => event.target.name !== "query" && filter());
  form.elements.query.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(filter, 200);
  });
  for (const button of browser.querySelectorAll("[data-step]"))
    button.addEventListener("click", () => choose(current + Number(button.dataset.step)));
  for (const button of browser.querySelectorAll("[data-page]"))
    button.addEventListener("click", () => {
      const page = Math.floor(current / SHOWN_AT_ONCE) + Number(button.dataset.page);
      if (page >= 0 && page * SHOWN_AT_ONCE < found.length) choose(page * SHOWN_AT_ONCE);
    });
  /* Only while the focus is in the browser, so that no key is taken from the rest of the page. */
  browser.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select, textarea")) return;
    const step = { ArrowLeft: -1, ArrowRight: 1, k: -1, j: 1 }[event.key];
    if (step !== undefined) choose(current + step);
    else if (event.key === "/") form.elements.query.focus();
    else return;
    event.preventDefault();
  });
  start();
})();
