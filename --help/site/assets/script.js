/* Sort, filter, choose columns, compare. A classic script: it also runs from file:// and under a
   policy that allows nothing inline. Text from outside only ever becomes textContent. */
(function () {
  "use strict";

  var NOTHING = "–";
  var MOST_ROWS = 100;

  function all(selector, within) {
    return Array.from((within || document).querySelectorAll(selector));
  }

  function element(name, text, attributes) {
    var made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    Object.keys(attributes || {}).forEach(function (key) { made.setAttribute(key, attributes[key]); });
    return made;
  }

  /* What is after the # is the view: a link to the page with it shows the same. */
  function readView() {
    return new URLSearchParams(location.hash.slice(1));
  }

  function keepView(values) {
    var view = new URLSearchParams();
    Object.keys(values).forEach(function (key) { if (values[key]) view.set(key, values[key]); });
    var hash = view.toString() ? "#" + view.toString() : "";
    if (hash !== location.hash) history.replaceState(null, "", hash || location.pathname + location.search);
    var link = document.getElementById("permalink");
    if (link) link.href = hash || "#";
  }

  function startBoard(section) {
    var table = document.getElementById("ranks");
    var body = table.tBodies[0];
    var heads = all("thead th", table);
    var rows = Array.from(body.rows);
    var ordered = rows;
    var tools = document.getElementById("tools");
    var status = document.getElementById("status");
    var picked = [];
    var started = columnsShown();
    var sorted = null;
    var applying = false;
    var showsAll = false;
    var more = element("button", "", { type: "button", "class": "no-print" });

    function control(id) { return document.getElementById(id); }
    function headOf(key) { return heads.find(function (head) { return head.dataset.key === key; }); }
    function choosable() { return heads.filter(function (head) { return head.dataset.section; }); }
    function columnsShown() {
      return choosable().filter(function (head) { return !head.hidden; }).map(function (head) { return head.dataset.key; });
    }

    function keyOf(row, index) {
      var cell = row.cells[index];
      if (cell.dataset.v !== undefined) return parseFloat(cell.dataset.v);
      var text = cell.textContent.trim();
      if (text === NOTHING || text[0] === "†") return null;
      var number = parseFloat(text.replace(/,/g, ""));
      return heads[index].classList.contains("text") || isNaN(number) ? text.toLowerCase() : number;
    }

    /* Equal figures keep the order of rank; a missing figure is always last. */
    function sort(key, direction) {
      var head = headOf(key);
      if (!head || key === "interval") return;
      var index = heads.indexOf(head);
      var keyed = rows.map(function (row, place) { return { row: row, key: keyOf(row, index), place: place }; });
      var sign = direction === "ascending" ? 1 : -1;
      keyed.sort(function (a, b) {
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
        if (a.key === b.key) return a.place - b.place;
        return (a.key < b.key ? -1 : 1) * sign;
      });
      var isMoved = keyed.some(function (one, place) { return one.row !== ordered[place]; });
      if (isMoved) {
        var fragment = document.createDocumentFragment();
        ordered = keyed.map(function (one) { one.row.hidden = true; return one.row; });
        ordered.forEach(function (row) { fragment.appendChild(row); });
        body.appendChild(fragment);
      }
      heads.forEach(function (one) { one.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", direction);
      sorted = { key: key, direction: direction };
    }

    function firstDirection(head) {
      var text = head.classList.contains("text") || head.dataset.key === "rank";
      return text ? "ascending" : "descending";
    }

    function isWanted(row) {
      var words = control("search").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
      var open = control("open").value;
      var size = control("size").value;
      var inputs = control("inputs").value;
      if (!words.every(function (word) { return row.dataset.words.includes(word); })) return false;
      if (inputs && row.dataset.inputs !== inputs) return false;
      if (open === "both" && row.dataset.open !== "weights data") return false;
      if (open && open !== "both" && !row.dataset.open.split(" ").includes(open)) return false;
      if (!size) return true;
      if (size === "unknown") return row.dataset.size === "";
      var ends = size.split("-");
      var billions = parseFloat(row.dataset.size);
      return billions > (parseFloat(ends[0]) || 0) - (ends[0] === "0" ? 1 : 0) && billions <= (parseFloat(ends[1]) || Infinity);
    }

    /* A long table is laid out only as far as it is read. */
    function filter() {
      var wanted = 0, shown = 0;
      ordered.forEach(function (row) {
        var isShown = isWanted(row);
        wanted += isShown ? 1 : 0;
        isShown = isShown && (showsAll || shown < MOST_ROWS);
        shown += isShown ? 1 : 0;
        row.hidden = !isShown;
      });
      more.hidden = shown === wanted;
      more.textContent = "Show all " + wanted + " models";
      status.textContent = (shown === rows.length ? "All " + shown : shown + " of " + rows.length) + (rows.length === 1 ? " model" : " models");
    }

    function showColumns(keys) {
      heads.forEach(function (head, index) {
        if (!head.dataset.section) return;
        var hidden = !keys.includes(head.dataset.key);
        if (head.hidden === hidden) return;
        head.hidden = hidden;
        rows.forEach(function (row) { row.cells[index].hidden = hidden; });
      });
      all("input[data-key]", tools).forEach(function (box) { box.checked = keys.includes(box.dataset.key); });
      all("input[data-section]", tools).forEach(function (box) {
        var boxes = all("input[data-key]", box.closest("fieldset"));
        var on = boxes.filter(function (one) { return one.checked; }).length;
        box.checked = on === boxes.length && on > 0;
        box.indeterminate = on > 0 && on < boxes.length;
      });
    }

    /* A group shows its own benchmarks and its own average, and orders by that. */
    function showGroup(group) {
      var keys = choosable().filter(function (head) {
        if (head.dataset.section === "benchmarks") return !group || (head.dataset.groups || "").split(" ").includes(group);
        return head.dataset.key === group || started.includes(head.dataset.key);
      }).map(function (head) { return head.dataset.key; });
      showColumns(keys);
      if (group && headOf(group)) sort(group, "descending"); else sort("rank", "ascending");
    }

    function keep() {
      if (applying) return;
      var columns = columnsShown();
      var usual = columns.join(",") === started.join(",");
      keepView({
        q: control("search").value.trim(), size: control("size").value, inputs: control("inputs").value,
        open: control("open").value, group: control("group").value,
        sort: sorted && (sorted.key !== "rank" || sorted.direction !== "ascending") ? sorted.key + "." + sorted.direction : "",
        columns: usual ? "" : columns.join(",") || "none",
        compare: picked.join(","), rows: showsAll ? "all" : ""
      });
    }

    function apply() {
      var view = readView();
      applying = true;
      ["size", "inputs", "open", "group"].forEach(function (id) {
        control(id).value = view.get(id) || "";
        if (control(id).selectedIndex < 0) control(id).value = "";
      });
      control("search").value = view.get("q") || "";
      showGroup(control("group").value);
      if (view.get("columns")) showColumns(view.get("columns").split(","));
      var order = (view.get("sort") || "").split(".");
      if (order[1] === "ascending" || order[1] === "descending") sort(order[0], order[1]);
      picked = (view.get("compare") || "").split(",").filter(function (slug) {
        return rows.some(function (row) { return row.dataset.slug === slug; });
      }).slice(0, 2);
      showPicked();
      showsAll = view.get("rows") === "all";
      filter();
      applying = false;
      keep();
    }

    var bar = element("p", undefined, { id: "compare-bar", "class": "no-print", role: "status" });
    function showPicked() {
      all("input.pick", body).forEach(function (box) {
        box.checked = picked.includes(box.value);
        box.disabled = picked.length === 2 && !box.checked;
      });
      bar.textContent = "";
      if (picked.length === 1) bar.append("Choose a second model to compare with.");
      if (picked.length === 2) {
        var link = element("a", "Compare these two, sample by sample", {});
        link.href = section.dataset.compare + "#" + new URLSearchParams({ a: picked[0], b: picked[1] });
        bar.append(link);
      }
    }

    heads.forEach(function (head) {
      if (head.dataset.key === "interval") return;
      var button = element("button", head.textContent, { type: "button" });
      head.textContent = "";
      head.appendChild(button);
      button.addEventListener("click", function () {
        var now = head.getAttribute("aria-sort");
        var first = firstDirection(head);
        var other = first === "ascending" ? "descending" : "ascending";
        sort(head.dataset.key, now === first ? other : first);
        filter();
        keep();
      });
    });
    rows.forEach(function (row) {
      var name = row.querySelector("th.model").textContent.trim();
      var box = element("input", undefined, { type: "checkbox", "class": "pick no-print", "aria-label": "Compare " + name });
      box.value = row.dataset.slug;
      row.cells[0].prepend(box);
    });
    body.addEventListener("change", function (event) {
      if (!event.target.classList.contains("pick")) return;
      var slug = event.target.value;
      picked = event.target.checked ? picked.concat(slug) : picked.filter(function (one) { return one !== slug; });
      showPicked();
      keep();
    });
    tools.addEventListener("input", function (event) {
      var target = event.target;
      if (target.dataset.key || target.dataset.section) {
        if (target.dataset.section) all("input[data-key]", target.closest("fieldset")).forEach(function (box) { box.checked = target.checked; });
        showColumns(all("input[data-key]:checked", tools).map(function (box) { return box.dataset.key; }));
      } else if (target.id === "group") {
        showGroup(target.value);
      } else if (target.id === "protocol") {
        location.href = target.value;
        return;
      }
      filter();
      keep();
    });
    tools.addEventListener("reset", function (event) {
      event.preventDefault();
      history.replaceState(null, "", location.pathname + location.search);
      apply();
    });
    tools.addEventListener("submit", function (event) { event.preventDefault(); });
    document.addEventListener("click", function (event) {
      var menu = tools.querySelector(".chooser[open]");
      if (menu && !menu.contains(event.target)) menu.open = false;
    });
    document.addEventListener("keydown", function (event) {
      var menu = tools.querySelector(".chooser[open]");
      if (event.key === "Escape" && menu) { menu.open = false; menu.querySelector("summary").focus(); }
    });
    more.addEventListener("click", function () {
      showsAll = true;
      filter();
      keep();
    });
    section.querySelector(".table-scroll").after(more, bar);
    var filters = control("filters");
    filters.open = window.innerWidth > 768;
    filters.hidden = false;
    window.addEventListener("hashchange", apply);
    apply();
  }

  /* Each model's samples are a script of their own, loaded when it is chosen: under file:// nothing
     else can be loaded. It calls medixSamples(slug, content). */
  var loaded = {};
  var waiting = {};
  window.medixSamples = function (slug, content) { loaded[slug] = content; };

  function load(slug, then) {
    if (Object.prototype.hasOwnProperty.call(loaded, slug)) { then(loaded[slug]); return; }
    if (waiting[slug]) { waiting[slug].push(then); return; }
    waiting[slug] = [then];
    var script = element("script", undefined, { src: "samples/" + encodeURIComponent(slug) + ".js" });
    script.onload = script.onerror = function () {
      var callbacks = waiting[slug];
      delete waiting[slug];
      callbacks.forEach(function (callback) { callback(loaded[slug] || null); });
    };
    document.head.appendChild(script);
  }

  function decode(scores) {
    return Array.from(scores.codes, function (letter) {
      return letter === "-" ? null : scores.values[letter.codePointAt(0) - 48];
    });
  }

  function sum(numbers) { return numbers.reduce(function (a, b) { return a + b; }, 0); }

  /* B minus A on shared samples; samples of one cluster vary together. */
  function pair(a, b, clusters) {
    var differences = [], sums = new Map(), wins = 0, losses = 0;
    var first = decode(a), second = decode(b), meanA = 0, meanB = 0;
    first.forEach(function (score, index) {
      if (score === null || second[index] === null) return;
      var difference = second[index] - score;
      differences.push([difference, clusters ? clusters[index] : index]);
      wins += difference > 0 ? 1 : 0;
      losses += difference < 0 ? 1 : 0;
      meanA += score;
      meanB += second[index];
    });
    var n = differences.length;
    if (!n) return null;
    var mean = (meanB - meanA) / n;
    differences.forEach(function (one) { sums.set(one[1], (sums.get(one[1]) || 0) + one[0] - mean); });
    var k = sums.size;
    var squares = sum(Array.from(sums.values(), function (value) { return value * value; }));
    return {
      n: n, wins: wins, losses: losses, a: meanA / n, b: meanB / n, mean: mean,
      variance: k > 1 ? squares / (n * n) * k / (k - 1) : null
    };
  }

  function percent(value) { return (100 * value).toFixed(1); }
  function signed(value) { return (value > 0 ? "+" : value < 0 ? "−" : "") + percent(Math.abs(value)); }

  function difference(cell, mean, variance, isKnown) {
    var text = signed(mean);
    if (isKnown) {
      var half = 1.959963984540054 * Math.sqrt(variance);
      text += " (" + signed(mean - half) + " to " + signed(mean + half) + ")";
      if (Math.abs(mean) > half) cell.classList.add("best", mean > 0 ? "good" : "bad");
    }
    cell.textContent = text;
  }

  function startPair(form) {
    var selects = [document.getElementById("model-a"), document.getElementById("model-b")];
    var status = document.getElementById("status");
    var result = document.getElementById("pair-result");
    var labels = JSON.parse(result.dataset.labels);
    var groups = JSON.parse(result.dataset.groups);
    var asked = 0;

    function cells(row, values) {
      values.forEach(function (value) { row.appendChild(element("td", typeof value === "number" ? value.toLocaleString("en") : value)); });
    }

    function draw(a, b, clusters) {
      var table = element("table", undefined, { "class": "plain" });
      var head = table.createTHead().insertRow();
      ["Benchmark", "A", "B", "B − A (95 % interval)", "B wins", "B loses", "Equal", "Shared"].forEach(function (label, index) {
        head.appendChild(element("th", label, { scope: "col", "class": index ? "" : "text" }));
      });
      var body = table.createTBody(), pairs = {}, shared = 0;
      labels.forEach(function (label) {
        if (!a.tasks[label[0]] || !b.tasks[label[0]]) return;
        var found = pair(a.tasks[label[0]], b.tasks[label[0]], clusters[label[0]]);
        if (found) { pairs[label[0]] = found; shared += found.n; }
      });
      groups.forEach(function (group) {
        var found = group[2].map(function (task) { return pairs[task]; });
        if (!found.length || !found.every(Boolean)) return;
        var row = body.insertRow(), n = found.length;
        row.className = "group";
        row.appendChild(element("th", group[1], { scope: "row" }));
        var mean = function (key) { return sum(found.map(function (one) { return one[key]; })) / n; };
        cells(row, [percent(mean("a")), percent(mean("b"))]);
        var known = found.every(function (one) { return one.variance !== null; });
        var differ = sum(found.map(function (one) { return one.wins + one.losses; }));
        difference(row.appendChild(element("td", "", { "class": "difference" })), mean("mean"), sum(found.map(function (one) { return one.variance; })) / (n * n), known && differ >= 10);
        cells(row, ["wins", "losses"].map(function (key) { return sum(found.map(function (one) { return one[key]; })); }));
        cells(row, [sum(found.map(function (one) { return one.n - one.wins - one.losses; })), sum(found.map(function (one) { return one.n; }))]);
      });
      labels.forEach(function (label) {
        var found = pairs[label[0]];
        if (!found) return;
        var row = body.insertRow();
        row.appendChild(element("th", label[1], { scope: "row" }));
        cells(row, [percent(found.a), percent(found.b)]);
        difference(row.appendChild(element("td", "", { "class": "difference" })), found.mean, found.variance, found.variance !== null && found.wins + found.losses >= 10);
        cells(row, [found.wins, found.losses, found.n - found.wins - found.losses, found.n]);
      });
      result.textContent = "";
      result.appendChild(table);
      result.hidden = !shared;
      status.textContent = shared ? shared.toLocaleString("en") + (shared === 1 ? " shared sample" : " shared samples") : "These two models share no sample.";
    }

    function compare() {
      var slugs = selects.map(function (select) { return select.value; });
      keepView({ a: slugs[0], b: slugs[1] });
      result.hidden = true;
      if (!slugs[0] || !slugs[1]) { status.textContent = ""; return; }
      if (slugs[0] === slugs[1]) { status.textContent = "Choose two different models."; return; }
      var mine = ++asked;
      status.textContent = "Loading …";
      load(slugs[0], function (a) {
        load(slugs[1], function (b) {
          load("_clusters", function (clusters) {
            if (mine !== asked) return;
            if (!a || !b || !clusters) { status.textContent = "The samples of these models could not be loaded."; return; }
            draw(a, b, clusters);
          });
        });
      });
    }

    function apply() {
      var view = readView();
      ["a", "b"].forEach(function (key, index) {
        selects[index].value = view.get(key) || "";
        if (selects[index].selectedIndex < 0) selects[index].value = "";
      });
      compare();
    }

    form.addEventListener("submit", function (event) { event.preventDefault(); });
    selects.forEach(function (select) { select.addEventListener("change", compare); });
    document.getElementById("swap").addEventListener("click", function () {
      var first = selects[0].value;
      selects[0].value = selects[1].value;
      selects[1].value = first;
      compare();
    });
    form.hidden = false;
    window.addEventListener("hashchange", apply);
    apply();
  }

  var board = document.getElementById("board");
  if (board) startBoard(board);
  var form = document.getElementById("pair");
  if (form) startPair(form);
})();
