// Interactive counterparts of the figures, drawn by plotly.js from the data in the page, each when the reader asks.
(() => {
  "use strict";
  const source = document.getElementById("explore-library");
  if (!source || typeof DecompressionStream === "undefined") return;
  const payload = JSON.parse(document.getElementById("explore-data").textContent);
  const MAX_SCENES = 4;
  const MAX_ROWS = 500;
  const GRAY = "#444444";
  const SHIFTS = { batch_size: 1.25, learning_rate: 1.06 }; // factor between the first and the last color
  const CAMERA = { eye: { x: 1.5, y: -1.5, z: 1.05 }, up: { x: 0, y: 0, z: 1 }, center: { x: 0, y: 0, z: -0.18 } };

  function element(name, properties = {}, ...children) {
    const { role, label, pressed, ...rest } = properties;
    const made = Object.assign(document.createElement(name), rest);
    if (role) made.setAttribute("role", role);
    if (label) made.setAttribute("aria-label", label);
    if (pressed !== undefined) made.setAttribute("aria-pressed", String(pressed));
    made.append(...children);
    return made;
  }

  // plotly.js is decompressed and run when the first figure needs it.
  let loading;
  function loadLibrary() {
    loading ??= (async () => {
      const bytes = Uint8Array.from(atob(source.textContent.trim()), (letter) => letter.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      document.head.append(element("script", { textContent: await new Response(stream).text() }));
      if (!window.Plotly) throw new Error("plotly.js did not run");
    })();
    return loading;
  }

  function hasWebGL() {
    const context = document.createElement("canvas").getContext("webgl");
    context?.getExtension("WEBGL_lose_context")?.loseContext();
    return Boolean(context);
  }

  // Integers, such as batch sizes and steps, are exact.
  const format = (value) =>
    value === null || value === undefined ? "–" : String(Number.isInteger(value) ? value : Number(value.toPrecision(4)));
  const unique = (values) => [...new Set(values)];

  class Figure {
    constructor(article, view) {
      this.view = view;
      this.article = article;
      this.title = article.querySelector("h3").textContent;
      this.layers = view.layers.map((layer) => ({ ...layer, ...payload.data[layer.data] }));
      this.dimensions = unique(this.layers.flatMap((layer) => layer.dimensions));
      this.switched = new Map(); // the codes of each dimension that are switched on
      this.color = view.color;
      this.log = new Set(view.log);
      this.kinds = new Set(this.layers.map((layer) => layer.kind));
      this.camera = CAMERA;
    }

    // Returns the codes of a dimension that occur in this figure, in their order.
    codes(dimension) {
      const found = this.layers.flatMap((layer) => {
        const place = layer.dimensions.indexOf(dimension);
        return place < 0 ? [] : layer.series.flatMap((series) => series[1][place]);
      });
      return unique(found).sort((a, b) => a - b);
    }

    build() {
      this.controls = element("div", { className: "switches", role: "group", label: `Switches of ${this.title}` });
      for (const dimension of this.dimensions) {
        const codes = this.codes(dimension);
        const start = this.view.start[dimension];
        this.switched.set(dimension, new Set(codes.includes(start) ? [start] : codes));
        if (codes.length > 1) this.controls.append(this.buildSwitches(dimension, codes));
      }
      if (this.view.mark === "surface") this.startWithFewScenes();
      this.controls.append(this.buildAxes(), this.buildMoves());
      this.plot = element("div", { className: "plot", role: "group", label: `Interactive figure: ${this.title}` });
      this.status = element("p", { className: "note", role: "status" });
      const list = element("div");
      this.values = element("details", { className: "values" }, element("summary", {}, "The values shown, as a table"), list);
      this.values.addEventListener("toggle", () => this.listValues(list));
      this.panel = element("div", { className: "interactive" }, this.controls, this.plot, this.status, this.values);
      return this.panel;
    }

    buildSwitches(dimension, codes) {
      const { title, labels, colors } = payload.dimensions[dimension];
      const switched = this.switched.get(dimension);
      const boxes = codes.map((code) => {
        const box = element("input", { type: "checkbox", checked: switched.has(code) });
        box.addEventListener("change", () => {
          if (box.checked) switched.add(code);
          else switched.delete(code);
          this.draw();
        });
        const swatch = element("span", { className: "swatch" });
        swatch.style.background = colors[code];
        swatch.dataset.dimension = dimension;
        return [box, element("label", {}, box, " ", swatch, labels[code])];
      });
      const all = element("button", { type: "button", label: `${title}: all or none` }, "all/none");
      all.addEventListener("click", () => {
        const on = boxes.some(([box]) => !box.checked);
        codes.forEach((code) => (on ? switched.add(code) : switched.delete(code)));
        boxes.forEach(([box]) => (box.checked = on));
        this.draw();
      });
      const group = element("fieldset", {}, element("legend", {}, title), ...boxes.map(([, label]) => label));
      if (codes.length > 3) group.append(all);
      return group;
    }

    // Of the planes, at first one of each setting: a browser can draw few scenes at a time.
    startWithFewScenes() {
      for (const dimension of ["seed", "direction_seed"]) {
        const [first, ...others] = this.codes(dimension);
        others.forEach((code) => this.switched.get(dimension).delete(code));
        const title = payload.dimensions[dimension]?.title;
        for (const group of this.controls.querySelectorAll("fieldset")) {
          if (group.firstChild.textContent !== title) continue;
          group.querySelectorAll("input").forEach((box, index) => (box.checked = index === 0));
        }
        if (first !== undefined) this.switched.get(dimension).add(first);
      }
    }

    buildAxes() {
      const group = element("fieldset", {}, element("legend", {}, "Axes"));
      const names = this.view.mark === "surface" ? { z: "logarithmic loss" } : { x: "logarithmic x", y: "logarithmic y" };
      for (const [axis, name] of Object.entries(names)) {
        const box = element("input", { type: "checkbox", checked: this.log.has(axis) });
        box.addEventListener("change", () => {
          if (box.checked) this.log.add(axis);
          else this.log.delete(axis);
          this.draw();
        });
        group.append(element("label", {}, box, " ", name));
      }
      if (this.kinds.size > 1) {
        for (const [kind, name] of [["runs", "runs"], ["means", "mean ± standard deviation"]]) {
          const box = element("input", { type: "checkbox", checked: true });
          box.addEventListener("change", () => {
            if (box.checked) this.kinds.add(kind);
            else this.kinds.delete(kind);
            this.draw();
          });
          group.append(element("label", {}, box, " ", name));
        }
      }
      const colored = this.dimensions.filter((dimension) => this.codes(dimension).length > 1);
      if (this.view.mark !== "surface" && colored.length > 1) {
        const select = element("select");
        for (const dimension of colored) {
          const { title } = payload.dimensions[dimension];
          select.append(element("option", { value: dimension, selected: dimension === this.color }, title));
        }
        select.addEventListener("change", () => {
          this.color = select.value;
          this.draw();
        });
        group.append(element("label", {}, "color by ", select));
      }
      return group;
    }

    // Buttons for what a mouse does by dragging and scrolling.
    buildMoves() {
      const moves = element("div", { className: "moves", role: "group", label: "Move the view" });
      const add = (name, act) => {
        const button = element("button", { type: "button" }, name);
        button.addEventListener("click", act);
        moves.append(button);
      };
      if (this.view.mark === "surface") {
        add("Turn left", () => this.turn(-15, 0));
        add("Turn right", () => this.turn(15, 0));
        add("Turn up", () => this.turn(0, 10));
        add("Turn down", () => this.turn(0, -10));
        add("Zoom in", () => this.turn(0, 0, 1 / 1.2));
        add("Zoom out", () => this.turn(0, 0, 1.2));
        add("Reset view", () => this.look(CAMERA));
      } else {
        add("Zoom in", () => this.zoom(1 / 1.5));
        add("Zoom out", () => this.zoom(1.5));
        add("Reset view", () => this.draw());
      }
      return moves;
    }

    // Returns the series of a layer that are switched on, each with the code that gives its color.
    visible(layer) {
      if (!this.kinds.has(layer.kind)) return [];
      const switched = layer.dimensions.map((dimension) => this.switched.get(dimension));
      const place = layer.dimensions.indexOf(this.color);
      return layer.series
        .filter(([, codes]) => codes.every((each, index) => each.some((code) => switched[index].has(code))))
        .map(([name, codes, panel, columns]) => ({
          name, panel, columns, codes,
          color: place < 0 ? -1 : codes[place].find((code) => switched[place].has(code)),
        }));
    }

    colorOf(code) {
      return code < 0 ? GRAY : payload.dimensions[this.color].colors[code];
    }

    // Whether a value can be drawn: a logarithmic axis has no place for 0 and negative numbers.
    isDrawable(value, axis) {
      return value !== null && (value > 0 || !this.log.has(axis));
    }

    // Returns the panels that have something to draw, each with the points of its layers.
    panels() {
      const panels = new Map();
      for (const layer of this.layers) {
        const place = (column) => layer.columns.indexOf(column);
        const x = layer.kind === "means" && place(`${this.view.x}_mean`) >= 0 ? place(`${this.view.x}_mean`) : place(this.view.x);
        for (const series of this.visible(layer)) {
          for (const { column, title } of this.view.panels) {
            const y = place(layer.kind === "means" ? `${column}_mean` : column);
            if (y < 0 || x < 0) continue;
            const [xs, ys] = [series.columns[x], series.columns[y]];
            const rows = ys.map((_, row) => row).filter((row) => this.isDrawable(xs[row], "x") && this.isDrawable(ys[row], "y"));
            if (!rows.length) continue;
            const pick = (values) => values && rows.map((row) => values[row]);
            const name = this.view.panelBy ? series.panel : title;
            if (!panels.has(name)) panels.set(name, { runs: [], means: [] });
            panels.get(name)[layer.kind].push({
              name: series.name, color: series.color, codes: series.codes, dimensions: layer.dimensions,
              x: pick(xs), y: pick(ys), spread: pick(series.columns[place(`${column}_sd`)]),
            });
          }
        }
      }
      const order = this.view.panelBy ? this.panelOrder() : this.view.panels.map(({ title }) => title);
      return order.filter((name) => panels.has(name)).map((name) => [name, panels.get(name)]);
    }

    panelOrder() {
      return unique(this.layers.flatMap((layer) => layer.series.map((series) => series[2])));
    }

    // Returns the place of a value: points of different colors are shifted, so that none hides another.
    place(value, color, colors) {
      if (!SHIFTS[this.view.x] || this.color === this.view.x) return value;
      return value * SHIFTS[this.view.x] ** ((colors.indexOf(color) + 0.5) / colors.length - 0.5);
    }

    traces(panels) {
      const traces = [];
      const colors = unique(panels.flatMap(([, { runs, means }]) => [...runs, ...means].map(({ color }) => color))).sort((a, b) => a - b);
      const isLine = this.view.mark === "line";
      const hasMeans = this.layers.some((layer) => layer.kind === "means");
      panels.forEach(([title, kinds], index) => {
        const axes = index ? { xaxis: `x${index + 1}`, yaxis: `y${index + 1}` } : { xaxis: "x", yaxis: "y" };
        for (const kind of ["runs", "means"]) {
          for (const color of colors) {
            const parts = kinds[kind].filter((part) => part.color === color);
            if (!parts.length) continue;
            const [x, y, text, custom, spread] = [[], [], [], [], []];
            const separate = isLine && parts.some((part) => part.x.length > 1);
            for (const part of parts) {
              if (separate && x.length) [x, y, text, custom, spread].forEach((values) => values.push(null));
              const name = (kind === "means" ? `mean of ${part.name || "the seeds"}` : part.name).replaceAll("<", "‹");
              part.x.forEach((value, row) => {
                x.push(this.place(value, color, colors));
                y.push(part.y[row]);
                custom.push(value);
                spread.push(part.spread?.[row] ?? null);
                text.push(name + (part.spread?.[row] ? ` (± ${format(part.spread[row])})` : ""));
              });
            }
            // Means of one color are connected if each batch size or rate has one of them.
            const connected = kind === "means" && this.color !== this.view.x && unique(custom).length === custom.length && color >= 0;
            if (!separate && (connected || isLine)) this.sortByX([x, y, text, custom, spread]);
            const line = { color: this.colorOf(color), width: kind === "means" ? 3 : 1.2 };
            traces.push({
              type: "scatter", ...axes, x, y, text, customdata: custom, line, hovertext: y.map(format),
              mode: separate ? (x.length > 60 * parts.length / 4 ? "lines" : "lines+markers") : connected || isLine ? "lines+markers" : "markers",
              marker: { color: this.colorOf(color), size: kind === "means" ? (separate ? 5 : 10) : hasMeans ? 5 : 8, symbol: kind === "means" ? "diamond" : "circle" },
              opacity: kind === "means" ? 1 : hasMeans ? 0.6 : 0.85,
              error_y: kind === "means" && !separate && spread.some((value) => value !== null) ? { array: spread, color: this.colorOf(color), thickness: 1.5, width: 0 } : undefined,
              hovertemplate: `%{text}<br>${this.view.xTitle}: %{customdata}<br>${title}: %{hovertext}<extra></extra>`,
              showlegend: false, name: kind, meta: { panel: title, kind, color },
            });
          }
        }
      });
      return traces;
    }

    sortByX(columns) {
      const order = columns[0].map((_, index) => index).sort((a, b) => columns[0][a] - columns[0][b]);
      for (const values of columns) values.splice(0, values.length, ...order.map((index) => values[index]));
    }

    layout(panels, traces, width) {
      const columns = panels.length === 1 ? 1 : width < 700 || panels.length === 2 || panels.length === 4 ? 2 : 3;
      const rows = Math.ceil(panels.length / columns);
      // As high as fits below the controls, so that two rows are seen together.
      const free = window.innerHeight - this.controls.offsetHeight - 100;
      const rowHeight = rows === 1 ? 340 : Math.min(300, Math.max(220, free / rows));
      const layout = {
        width, height: 40 + rowHeight * rows, margin: { l: 60, r: 15, t: 35, b: 55 }, hovermode: "closest",
        grid: { rows, columns, pattern: "independent", xgap: 0.16, ygap: 0.25 }, annotations: [], dragmode: "zoom",
        font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "#1c1c1c" },
        paper_bgcolor: "#fff", plot_bgcolor: "#fff",
      };
      panels.forEach(([title], index) => {
        const number = index ? String(index + 1) : "";
        const own = traces.filter((trace) => trace.meta.panel === title);
        const ticks = unique(own.flatMap((trace) => trace.customdata)).filter((value) => value !== null).sort((a, b) => a - b);
        const isDiscrete = ["batch_size", "learning_rate", "devices", "branch_batch_size"].includes(this.view.x) && ticks.length <= 12;
        const axis = { showline: true, linecolor: "#999", mirror: true, gridcolor: "#eee", zeroline: false, automargin: true };
        const isLast = index >= panels.length - columns;
        layout[`xaxis${number}`] = {
          ...axis, type: this.log.has("x") ? "log" : "linear",
          title: isLast ? { text: this.view.xTitle, font: { size: 12 } } : undefined,
          ...(isDiscrete ? { tickmode: "array", tickvals: ticks, ticktext: ticks.map(format) } : {}),
        };
        const runs = own.filter((trace) => trace.meta.kind === "runs");
        const values = runs.flatMap((trace) => trace.y).filter((value) => value !== null);
        const isInteger = values.length > 0 && values.every(Number.isInteger) && Math.max(...values) - Math.min(...values) < 8;
        layout[`yaxis${number}`] = {
          ...axis, type: this.log.has("y") ? "log" : "linear", exponentformat: "power",
          ...(isInteger && !this.log.has("y") ? { dtick: 1 } : {}), // there is no half epoch
        };
        layout.annotations.push({
          text: `<b>${title}</b>`, xref: `x${number} domain`, yref: `y${number} domain`, x: 0, y: 1, yanchor: "bottom",
          xanchor: "left", showarrow: false, font: { size: 12 },
        });
      });
      return layout;
    }

    draw() {
      this.article.querySelectorAll(".swatch").forEach((swatch) => {
        swatch.hidden = swatch.dataset.dimension !== this.color || this.view.mark === "surface";
      });
      if (this.view.mark === "surface") this.drawSurfaces();
      else this.drawPanels();
      this.values.open = false;
    }

    drawPanels() {
      const panels = this.panels();
      const traces = this.traces(panels);
      const width = this.plot.clientWidth || 800;
      this.drawn = panels.flatMap(([title, { runs, means }]) => [
        ...runs.map((part) => ({ ...part, title })),
        ...means.map((part) => ({ ...part, title, name: `mean of ${part.name || "the seeds"}` })),
      ]);
      window.Plotly.react(this.plot, traces, this.layout(panels, traces, width), { displayModeBar: false, responsive: false });
      const count = (kind) => unique(panels.flatMap(([, parts]) => parts[kind].map(({ name }) => name))).length;
      const total = unique(this.layers.filter(({ kind }) => kind === "runs").flatMap(({ series }) => series.map(([name]) => name))).length;
      const thinned = this.view.points ? ` Lines have at most ${this.view.points} of their points here; the CSV files have all.` : "";
      const runs = total ? `${count("runs")} of ${total} series of runs are shown.` : `${count("means")} means are shown.`;
      this.status.textContent = traces.length ? runs + thinned : "Nothing is switched on that has a value on these axes.";
    }

    drawSurfaces() {
      const found = this.visible(this.layers[0]);
      const shown = found.slice(0, MAX_SCENES);
      const isLog = this.log.has("z");
      const place = (value) => (value === null || (isLog && value <= 0) ? null : isLog ? Math.log10(value) : value);
      const heights = shown.map(({ columns }) => columns[2].map((row) => row.map(place)));
      const finite = heights.flat(2).filter((value) => value !== null);
      const [low, high] = finite.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
      const width = this.plot.clientWidth || 800;
      const columns = shown.length > 1 ? 2 : 1;
      const rows = Math.ceil(shown.length / columns) || 1;
      const text = (value) => (value === null ? "not finite" : format(value));
      const traces = [];
      const layout = {
        width, height: Math.max(420, (rows * width * 0.85) / columns), margin: { l: 0, r: 0, t: 30, b: 0 }, annotations: [],
        font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: "#1c1c1c" },
      };
      shown.forEach(({ name: title, columns: [x, y, z, path] }, index) => {
        const scene = `scene${index ? index + 1 : ""}`;
        traces.push({
          type: "surface", scene, x, y, z: heights[index], cmin: low, cmax: high, colorscale: "Viridis", showscale: false,
          text: z.map((row) => row.map(text)), name: title,
          hovertemplate: `${title.replaceAll("<", "‹")}<br>x: %{x}<br>y: %{y}<br>${this.view.panels[0].title}: %{text}<extra></extra>`,
          contours: { z: { show: true, usecolormap: false, color: "#ffffff", width: 1, start: low, end: high, size: (high - low) / 12 || 1 } },
        });
        if (path.length) {
          traces.push({
            type: "scatter3d", mode: "lines+markers", scene, x: path[0], y: path[1], z: path[2].map(place), text: path[3],
            line: { color: "#FF7F0E", width: 5 }, marker: { color: "#FF7F0E", size: 3 }, showlegend: false,
            hovertemplate: `%{text}<extra></extra>`,
          });
        }
        const column = index % columns;
        const row = Math.floor(index / columns);
        const domain = { x: [column / columns, (column + 1) / columns], y: [1 - (row + 1) / rows, 1 - row / rows] };
        const exponents = unique(finite.map((value) => Math.floor(value)));
        const ticks = isLog ? exponents.flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power)).filter((value) => Math.log10(value) >= low && Math.log10(value) <= high) : [];
        layout[scene] = {
          domain, camera: this.camera, aspectmode: "cube", dragmode: "turntable",
          xaxis: { title: { text: "x" } }, yaxis: { title: { text: "y" } },
          zaxis: {
            title: { text: this.view.panels[0].title },
            ...(isLog && ticks.length > 1 ? { tickmode: "array", tickvals: ticks.map(Math.log10), ticktext: ticks.map(format) } : {}),
            ...(isLog && ticks.length <= 1 ? { tickmode: "array", tickvals: [low, (low + high) / 2, high], ticktext: [low, (low + high) / 2, high].map((value) => format(10 ** value)) } : {}),
          },
        };
        layout.annotations.push({
          text: `<b>${title.replaceAll("<", "‹")}</b>`, xref: "paper", yref: "paper", x: domain.x[0] + 0.01, y: domain.y[1], xanchor: "left",
          yanchor: "bottom", showarrow: false, font: { size: 12 },
        });
      });
      this.scenes = shown.map((_, index) => `scene${index ? index + 1 : ""}`);
      window.Plotly.react(this.plot, traces, layout, { displayModeBar: false }).then(() => this.follow());
      this.drawn = shown.flatMap(({ name, codes, columns: [x, y, z] }) =>
        y.map((value, row) => ({ name, codes, dimensions: this.layers[0].dimensions, title: `${this.view.panels[0].title}, y = ${format(value)}`, x, y: z[row] })));
      const more = found.length > shown.length ? ` Switch some off to see the others.` : "";
      this.status.textContent = `${shown.length} of ${found.length} planes that are switched on are shown; all turn together.${more}`;
    }

    // All scenes turn together, also if one of them is dragged.
    follow() {
      if (this.following) return;
      this.following = true;
      this.plot.on("plotly_relayout", (change) => {
        const cameras = Object.keys(change).filter((name) => /^scene\d*\.camera$/.test(name));
        if (cameras.length !== 1) return; // `look` itself turns all of them
        this.camera = change[cameras[0]];
        if (this.scenes.length > 1) this.look(this.camera);
      });
    }

    look(camera) {
      this.camera = camera;
      window.Plotly.relayout(this.plot, Object.fromEntries(this.scenes.map((scene) => [`${scene}.camera`, camera])));
    }

    turn(around, up, factor = 1) {
      const { x, y, z } = this.camera.eye;
      const distance = Math.hypot(x, y, z) * factor;
      const angle = Math.atan2(y, x) + (around * Math.PI) / 180;
      const height = Math.asin(z / Math.hypot(x, y, z)) + (up * Math.PI) / 180;
      const limited = Math.min(Math.max(height, -1.5), 1.5);
      const flat = distance * Math.cos(limited);
      this.look({ ...this.camera, eye: { x: flat * Math.cos(angle), y: flat * Math.sin(angle), z: distance * Math.sin(limited) } });
    }

    zoom(factor) {
      const change = {};
      for (const [name, axis] of Object.entries(this.plot._fullLayout)) {
        if (!/^[xy]axis\d*$/.test(name) || !axis.range) continue;
        const [low, high] = axis.range.map(Number);
        const [center, half] = [(low + high) / 2, ((high - low) / 2) * factor];
        change[`${name}.range`] = [center - half, center + half];
      }
      window.Plotly.relayout(this.plot, change);
    }

    // The points as a table that a screen reader reads, with what is switched on.
    listValues(list) {
      list.replaceChildren();
      if (!this.values.open) return;
      const rows = [];
      for (const part of this.drawn) {
        part.x.forEach((value, index) => {
          if (part.y[index] !== null && value !== null) rows.push([part.name, part.title, format(value), format(part.y[index]), format(part.spread?.[index])]);
        });
      }
      const headings = ["Run or setting", "Quantity", this.view.xTitle, "Value", "Standard deviation"];
      const head = element("tr", {}, ...headings.map((text) => element("th", { scope: "col", textContent: text })));
      const body = rows.slice(0, MAX_ROWS).map((row) => element("tr", {}, ...row.map((text) => element("td", { textContent: text }))));
      const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
      table.dataset.shown = String(Math.min(24, rows.length));
      table.dataset.total = String(rows.length);
      const wide = element("div", { className: "wide", tabIndex: 0, role: "region", label: `Values of ${this.title}` }, table);
      list.append(wide);
      if (body.length) window.enhanceTable(table);
    }
  }

  for (const [name, view] of Object.entries(payload.figures)) {
    const article = document.getElementById(`figure-${name}`);
    const image = article?.querySelector("figure > img");
    if (!image) continue;
    let figure;
    const title = element("span", { className: "for-readers", textContent: `: ${article.querySelector("h3").textContent}` });
    const button = element("button", { type: "button", className: "explore", pressed: false }, "Explore", title);
    const message = element("span", { className: "note", role: "status" });
    button.addEventListener("click", async () => {
      if (article.classList.contains("explored")) {
        article.classList.remove("explored");
        button.setAttribute("aria-pressed", "false");
        return;
      }
      button.disabled = true;
      message.textContent = " Loading …";
      try {
        if (view.mark === "surface" && !hasWebGL()) throw new Error("this browser has no WebGL, which turning a landscape needs");
        await loadLibrary();
        article.classList.add("explored");
        button.setAttribute("aria-pressed", "true");
        message.textContent = "";
        if (!figure) {
          figure = new Figure(article, view);
          image.after(figure.build());
        }
        figure.draw();
      } catch (error) {
        article.classList.remove("explored");
        message.textContent = ` Not available: ${error.message}.`;
      }
      button.disabled = false;
      button.focus();
    });
    image.before(element("div", { className: "explore-bar" }, button, message));
    let waiting;
    window.addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => figure && article.classList.contains("explored") && figure.draw(), 200);
    });
  }
})();
