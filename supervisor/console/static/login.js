// Signs in with a user of the broker.

import { byId } from "./dom.js";
import { post } from "./http.js";

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const failure = byId("failure");
  failure.hidden = true;
  form.querySelector("button").disabled = true;
  try {
    await post("/api/login", Object.fromEntries(new FormData(form)));
    location.assign("/");
  } catch (error) {
    failure.textContent = error.message;
    failure.hidden = false;
  } finally {
    form.querySelector("button").disabled = false;
  }
});
