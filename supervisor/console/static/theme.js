// Sets the theme before the first paint; "frame.js" changes it.
"use strict";
{
  const chosen = localStorage.getItem("planaria-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
}
