// A button with data-copies="id" copies the text of that element. Without this file it stays hidden.
"use strict";

for (const button of document.querySelectorAll("[data-copies]")) {
    const source = document.getElementById(button.dataset.copies);
    const outcome = document.getElementById(`${button.dataset.copies}-copied`);
    button.hidden = false;
    button.addEventListener("click", async () => {
        try {
            // Browsers have no clipboard for a page that came by plain HTTP from another machine.
            await navigator.clipboard.writeText(source.textContent);
            outcome.textContent = "Copied";
        } catch {
            getSelection().selectAllChildren(source);
            outcome.textContent = "Selected: copy it with the keyboard";
        }
    });
}
