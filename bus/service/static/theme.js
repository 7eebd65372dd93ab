// The theme is set before the page is drawn, so that a dark page never flashes white: hence a plain script, not a module.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("lineside.theme");
  } catch {
    // storage is switched off: the system's theme it is
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
