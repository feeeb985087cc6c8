// The same choice of theme as in the apps.
(function () {
  var root = document.documentElement, button = document.getElementById("theme");
  var system = matchMedia("(prefers-color-scheme: dark)");
  function isDark() { return root.dataset.theme ? root.dataset.theme === "dark" : system.matches; }
  function show() { button.setAttribute("aria-pressed", String(isDark())); }
  button.addEventListener("click", function () {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("webkiln-theme", root.dataset.theme); } catch (error) { /* forbidden */ }
    show();
  });
  system.addEventListener("change", show);
  show();
})();
