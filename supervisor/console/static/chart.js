// A chart over time with a table of its points behind it. Drawn by uPlot, in the colours of the theme.

import { el } from "./dom.js";
import { clock, rate } from "./format.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class TimeChart {
  /**
   * `series`: [{label, colour: "--in"}]; `seconds`: the length of the time axis; `marks`: vertical lines.
   */
  constructor(parent, { series, seconds = 120, height = 118, format = rate, unit = "" }) {
    this.series = series;
    this.seconds = seconds;
    this.height = height;
    this.format = format;
    this.unit = unit;
    this.data = [[], ...series.map(() => [])];
    this.marks = [];
    this.parent = parent;
    this.box = el("div");
    this.table = el("div.scroll", { tabindex: "0" });
    this.details = el("details.behind", { ontoggle: () => this.tabulate() }, el("summary", {}, "Show as a table"), this.table);
    parent.replaceChildren(this.box, this.details);
    this.make();
    new ResizeObserver(() => { if (this.plot && this.box.clientWidth) this.plot.setSize({ width: this.box.clientWidth, height: this.height }); }).observe(this.box);
    document.addEventListener("planaria-theme", () => this.make());
  }

  make() {
    this.plot?.destroy();
    const grid = { stroke: colour("--line"), width: 1 };
    const axis = { stroke: colour("--dim"), grid, ticks: grid, font: "11px system-ui, sans-serif" };
    this.plot = new uPlot({
      width: this.box.clientWidth || 600,
      height: this.height,
      legend: { live: true },
      cursor: { drag: { x: false, y: false } },
      scales: { x: { time: true, range: () => this.span() }, y: { range: (plot, min, max) => [0, Math.max(1, (max ?? 0) * 1.12)] } },
      axes: [
        { ...axis, values: (plot, splits) => splits.map((at) => clock(at * 1000)), space: 90, size: 30 },
        { ...axis, values: (plot, splits) => splits.map((value) => this.format(value)), size: 62, space: 24 },
      ],
      series: [
        { label: "at", value: (plot, value) => (value === null ? "" : clock(value * 1000)) },
        ...this.series.map((each) => ({
          label: each.label, stroke: colour(each.colour), width: 2, fill: `${colour(each.colour)}22`, points: { show: false },
          // Without the cursor on the chart: the newest.
          value: (plot, value, index) => { const shown = value ?? this.data[index].at(-1); return shown === undefined || shown === null ? "" : this.format(shown) + this.unit; },
        })),
      ],
      hooks: { draw: [(plot) => this.drawMarks(plot)] },
    }, this.data, this.box);
  }

  /** The time axis begins with the first point, and moves when it is full. */
  span() {
    const end = this.data[0].at(-1) ?? Date.now() / 1000;
    const begin = Math.max(this.data[0][0] ?? end, end - this.seconds);
    return [begin, Math.max(end, begin + 15)];
  }

  drawMarks(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = colour("--mark");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const at of this.marks) {
      const x = Math.round(plot.valToPos(at, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  add(atMs, values) {
    const at = atMs / 1000;
    this.data[0].push(at);
    values.forEach((value, position) => this.data[position + 1].push(value));
    while (this.data[0][0] < at - this.seconds - 5) this.data.forEach((each) => each.shift());
  }

  mark(atMs) {
    this.marks.push(atMs / 1000);
    this.marks = this.marks.slice(-200);
  }

  draw() {
    this.plot.setData(this.data);
    if (this.details.open) this.tabulate();
  }

  tabulate() {
    if (!this.details.open) return;
    const rows = this.data[0].map((at, row) => el("tr", {}, el("td", {}, clock(at * 1000)), this.series.map((_, position) => {
      const value = this.data[position + 1][row];
      return el("td.n", {}, value === null || value === undefined ? "–" : this.format(value) + this.unit);
    })));
    this.table.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "at"), this.series.map((each) => el("th.n", {}, each.label)))), el("tbody", {}, rows.reverse())));
  }
}
