// Numbers, sizes, times and durations as people read them.

export function count(value) {
  if (value === null || value === undefined) return "–";
  return Math.round(value).toLocaleString("en-US");
}

export function rate(value) {
  if (value < 10 && value > 0) return value.toFixed(1);
  if (value < 100000) return count(value);
  return value < 1e6 ? `${(value / 1e3).toFixed(0)}k` : `${(value / 1e6).toFixed(2)}M`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  let unit = 0;
  let left = value;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  while (left >= 1024 && unit < units.length - 1) { left /= 1024; unit += 1; }
  return `${unit === 0 || left >= 100 ? Math.round(left) : left.toFixed(1)} ${units[unit]}`;
}

export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function clock(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

export function time(ms) {
  if (ms === null || ms === undefined || ms <= 0) return "–";
  const at = new Date(ms);
  const pad = (value, width = 2) => String(value).padStart(width, "0");
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}

export const STATE_LOOKS = {
  ready: "ready", starting: "wait", recovering: "wait", stopping: "wait", backing_off: "dead", quarantined: "quar", asleep: "idle", stopped: "idle",
};
