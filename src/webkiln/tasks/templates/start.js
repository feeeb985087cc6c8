// Runs before anything is painted, and where modules can't: in pages opened as a file.
try {
  var theme = localStorage.getItem("webkiln-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch (error) {
  // Storage may be forbidden; the system's theme it is, then.
}
if (location.protocol === "file:") {
  addEventListener("DOMContentLoaded", function () {
    var show = function (id, text) { document.getElementById(id).textContent = text; };
    show("error-title", "This page needs a web server");
    show("error-message", "It was opened as a file. Browsers don't let a file load the model.");
    show("error-hint", "In a terminal, run “webkiln serve” with the name of this folder, and open the address that it prints.");
    show("state-text", "Not started");
    document.getElementById("state").dataset.state = "failed";
    document.getElementById("error-retry").hidden = true;
    document.getElementById("error-close").hidden = true;
    document.getElementById("progress").hidden = true;
    document.getElementById("error").hidden = false;
  });
}
