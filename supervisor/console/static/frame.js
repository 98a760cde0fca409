// The frame of every page: theme, sign out, and the state of the connection.

import { byId } from "./dom.js";
import { acted, post } from "./http.js";

byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem("planaria-theme", root.dataset.theme);
  document.dispatchEvent(new Event("planaria-theme"));
});

byId("sign-out")?.addEventListener("click", () => acted(async () => { await post("/api/logout", {}); location.assign("/login"); }));

/** Show the state of a live page: "live" or "lost", with a reason. */
export function linkState(state, text) {
  const link = byId("link");
  if (link.dataset.state !== state) link.dataset.state = state;
  if (link.textContent !== text) link.textContent = text;
}
