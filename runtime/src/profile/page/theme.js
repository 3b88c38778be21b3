// Colours: light or dark, as the system has it until the button says otherwise.

/** After Okabe and Ito: told apart by who sees no red, no green or no blue. */
const PALETTE = [
  { fill: "#e69f00", text: "#000" },
  { fill: "#56b4e9", text: "#000" },
  { fill: "#009e73", text: "#000" },
  { fill: "#f0e442", text: "#000" },
  { fill: "#0072b2", text: "#fff" },
  { fill: "#d55e00", text: "#000" },
  { fill: "#cc79a7", text: "#000" },
];

/** The colours that pictures are drawn with, as the style sheet has them. */
const colours = {};
const repaints = [];

const paint = group => group < COLOURED ? PALETTE[group] : { fill: colours.other, text: colours["on-other"] };

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Change to ${theme === "dark" ? "light" : "dark"} colours`);
  const style = getComputedStyle(document.documentElement);
  for (const name of ["bg", "fg", "muted", "line", "card", "accent", "other", "on-other", "band"])
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  repaints.forEach(repaint => repaint());
}

{
  const system = matchMedia("(prefers-color-scheme: dark)");
  const asSystem = () => setTheme(system.matches ? "dark" : "light");
  const theme = () => document.documentElement.dataset.theme;
  system.addEventListener("change", asSystem);
  $("theme").onclick = () => setTheme(theme() === "dark" ? "light" : "dark");
  let before;
  addEventListener("beforeprint", () => { before = theme(); setTheme("light"); });
  addEventListener("afterprint", () => setTheme(before));
  asSystem();
}
