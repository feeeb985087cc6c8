// Runs before anything is painted, and where modules can't: in pages opened as a file.
try {
  var theme = localStorage.getItem("webkiln-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch (error) {
  // Storage may be forbidden; the system's theme it is, then.
}
if (location.protocol === "file:") {
  addEventListener("DOMContentLoaded", function () {
    var say = function (id, text) {
      var element = document.getElementById(id);
      if (element) element.textContent = text;
    };
    say("error-title", "This page needs a web server");
    say("error-message", "It was opened as a file. Browsers don't let a file load the model.");
    say("error-hint", "In a terminal, run “webkiln serve” with the name of this folder, and open the address that it prints.");
    say("state-text", "Not started");
    document.getElementById("error").hidden = false;
    document.documentElement.dataset.file = "";
  });
}
