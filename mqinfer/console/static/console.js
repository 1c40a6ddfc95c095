// The console's own script: one stream of states for a tab, morphed into the page, and charts.
"use strict";

(() => {
  const live = document.getElementById("live");
  const away = document.getElementById("away");
  const pulse = document.getElementById("pulse");
  const address = live && live.dataset.live;
  let source = null;
  let again = 0;

  const WORDS = { live: "live", wait: "reconnecting", away: "no answer", still: "paused" };
  function say(state) {
    if (!pulse || pulse.dataset.state === state) return;
    pulse.dataset.state = state;
    pulse.querySelector(".word").textContent = WORDS[state];
  }

  // --- charts ------------------------------------------------------------------------------------

  const plots = new WeakMap();
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Vertical lines with a text, drawn by hand: uPlot has none.
  function marking(marks) {
    return {
      hooks: {
        draw: [(u) => {
          const { ctx, bbox } = u;
          ctx.save();
          ctx.strokeStyle = color("--muted");
          ctx.fillStyle = color("--muted");
          ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
          ctx.textAlign = "left";
          ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
          const taken = []; // of texts: from, to, line
          for (const mark of marks) {
            const x = u.valToPos(mark.x, "x", true);
            if (x < bbox.left || x > bbox.left + bbox.width) continue;
            ctx.beginPath();
            ctx.moveTo(x, bbox.top);
            ctx.lineTo(x, bbox.top + bbox.height);
            ctx.stroke();
            // To the left of its line where there is no room to the right.
            const wide = ctx.measureText(mark.text).width + 4 * devicePixelRatio;
            const left = x + wide > bbox.left + bbox.width ? x - wide : x + 4 * devicePixelRatio;
            let row = 1;
            while (taken.some(([from, to, on]) => on === row && left < to && from < left + wide)) row++;
            taken.push([left, left + wide, row]);
            ctx.fillText(mark.text, left, bbox.top + 12 * row * devicePixelRatio);
          }
          ctx.restore();
        }],
      },
    };
  }

  function draw(node) {
    const told = JSON.parse(node.dataset.plot);
    const old = plots.get(node);
    if (old) old.destroy();
    node.textContent = "";
    const percent = told.unit === "%";
    const write = (v) => (v == null ? "–" : percent ? `${(100 * v).toFixed(1)} %` : `${+v.toPrecision(4)}`);
    const data = [told.x];
    const series = [{}];
    const bands = [];
    // What stands alone has no line to be seen by.
    const alone = (u, i) => {
      const y = u.data[i];
      return y.map((_, at) => at).filter((at) => y[at] != null && y[at - 1] == null && y[at + 1] == null);
    };
    const dashes = [[], [6, 3], [2, 3], [8, 3, 2, 3]]; // lines differ by more than their color
    told.lines.forEach((line, i) => {
      const stroke = color(`--c${(i % 6) + 1}`);
      if (line.low && line.high) {
        const at = data.length;
        data.push(line.high, line.low);
        const edge = { label: "", stroke: "transparent", points: { show: false }, value: () => "" };
        series.push({ ...edge }, { ...edge });
        bands.push({ series: [at, at + 1], fill: stroke + "2b" });
      }
      data.push(line.y);
      series.push({ label: line.name, stroke, width: 2, dash: dashes[i % 4], points: { show: true, size: 5, filter: alone }, value: (_, v) => write(v) });
    });
    const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
    const options = {
      width: Math.max(240, node.clientWidth),
      height: Math.max(180, Math.min(280, node.clientWidth / 3)),
      series,
      bands,
      cursor: { drag: { x: true, y: false } },
      axes: [{ ...axis }, { ...axis, size: 60, values: (_, ticks) => ticks.map(write) }],
      plugins: [marking(told.marks || [])],
      legend: { show: told.lines.length > 1 },
    };
    plots.set(node, new uPlot(options, data, node));
  }

  const drawAll = () => document.querySelectorAll("[data-plot]").forEach(draw);

  // --- states ------------------------------------------------------------------------------------

  // What a person has done to the page stays: what is open, ticked or written.
  const callbacks = {
    beforeNodeMorphed(old, fresh) {
      if (!(old instanceof Element)) return true;
      if (old.dataset && old.dataset.plot !== undefined) {
        if (old.dataset.plot !== fresh.dataset.plot) {
          old.dataset.plot = fresh.dataset.plot;
          draw(old);
        }
        return false;
      }
      return !(old.hasAttribute("data-keep") && old.childElementCount);
    },
    // What became something else does something else: htmx reads what it does when it is told to.
    afterNodeMorphed(old) {
      if (old instanceof Element && (old.hasAttribute("hx-post") || old.hasAttribute("hx-get"))) htmx.process(old);
    },
    beforeAttributeUpdated(name, node) {
      if (["open", "checked", "selected"].includes(name)) return false;
      return !(name === "value" && node instanceof HTMLInputElement);
    },
    afterNodeAdded(node) {
      if (!(node instanceof Element)) return;
      if (node.matches("[data-plot]")) draw(node);
      node.querySelectorAll("[data-plot]").forEach(draw);
      htmx.process(node);
    },
  };

  function show(event) {
    const told = JSON.parse(event.data);
    if (told.build !== document.body.dataset.build) {
      location.reload(); // another version of the console serves now
      return;
    }
    Idiomorph.morph(live, told.html, { morphStyle: "innerHTML", ignoreActiveValue: true, callbacks });
    away.hidden = true;
    say("live");
    live.dispatchEvent(new CustomEvent("seen", { bubbles: true }));
  }

  function open() {
    clearTimeout(again);
    if (!address || source || document.hidden) return;
    source = new EventSource(address);
    source.addEventListener("state", show);
    source.addEventListener("away", (event) => {
      away.textContent = JSON.parse(event.data).reason;
      away.hidden = false;
      say("away");
    });
    source.addEventListener("reconnect", () => retry());
    source.onerror = refused;
  }

  // A browser does not say why a stream was refused: whoever is to enter is asked by the page.
  async function refused() {
    const ended = source && source.readyState === EventSource.CLOSED;
    retry();
    if (!ended) return;
    const answer = await fetch(location.href, { method: "HEAD" }).catch(() => null);
    if (answer && answer.status === 401) location.reload();
  }

  function close() {
    if (source) source.close();
    source = null;
  }

  function retry() {
    close();
    say("wait");
    clearTimeout(again);
    again = setTimeout(open, 500 + 1000 * Math.random());
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
      say("still");
    } else {
      open();
    }
  });
  addEventListener("pagehide", close);

  // --- choosing rows ---------------------------------------------------------------------------------

  // A box with `data-all="name"` ticks all boxes of that name.
  document.addEventListener("change", (event) => {
    const all = event.target.dataset && event.target.dataset.all;
    if (!all) return;
    document.querySelectorAll(`input[name="${all}"]`).forEach((box) => (box.checked = event.target.checked));
  });

  // A blob that is no picture, or is gone: said where it would be.
  document.addEventListener("error", (event) => {
    const node = event.target;
    if (!(node instanceof HTMLImageElement) || !node.closest(".example")) return;
    const text = document.createElement("p");
    text.className = "no-picture muted";
    text.textContent = `${node.alt}: no picture that can be shown`;
    node.replaceWith(text);
  }, true);

  // What an action says is read from the beginning.
  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.target.id !== "said") return;
    event.target.scrollIntoView({ block: "nearest" });
    const next = event.target.querySelector("[data-focus]");
    if (next) next.focus();
  });

  // What failed on the way is said as well; an answer with a text of its own is shown by htmx.
  for (const name of ["htmx:sendError", "htmx:timeout", "htmx:responseError"]) {
    document.body.addEventListener(name, () => {
      const said = document.getElementById("said");
      if (said) said.innerHTML = '<div class="note bad" role="alert">The console did not answer: try again.</div>';
    });
  }

  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) drawAll();
    width = innerWidth;
  });
  open();
})();
