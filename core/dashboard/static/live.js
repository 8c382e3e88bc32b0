// The live part of a page arrives as server-sent events from the address of the page. Without this
// script, pages do not update.
(() => {
  const part = document.querySelector("[data-live]");
  let stream = null;
  let waiting = null;
  let isPressed = false;
  let releasing;

  const isSelected = () => {
    const selection = getSelection();
    return !selection.isCollapsed && selection.containsNode(part, true);
  };

  // Do not change the part while the user works in it. A click needs the same element under the
  // pointer when the button goes down and when it goes up.
  const busy = () =>
    isPressed ||
    isSelected() ||
    part.querySelector("input[type=checkbox]:checked, details[open] :is(form, textarea)") !== null ||
    (part.contains(document.activeElement) &&
      document.activeElement.matches("input, select, textarea, button"));

  // The title of a time has it in UTC. Add the time of the reader.
  const addLocal = (time) => {
    if (time.title.includes("\n")) return;
    const local = new Date(time.dateTime).toLocaleString(undefined, { timeZoneName: "short" });
    time.title = `${local}\n${time.title}`;
  };

  const MORPH = {
    morphStyle: "innerHTML",
    callbacks: {
      // The user opens and closes details.
      beforeAttributeUpdated: (name, node) => name !== "open" || !node.matches("details"),
      afterNodeMorphed: (node) => node.matches?.("time[datetime]:hover") && addLocal(node),
    },
  };

  const put = (html) => {
    waiting = busy() ? html : null;
    part.toggleAttribute("data-waiting", waiting !== null);
    if (waiting !== null) return;
    const active = document.activeElement;
    const href = part.contains(active) ? active.getAttribute("href") : null;
    // Elements that stay keep their focus, their scroll position and their details open.
    Idiomorph.morph(part, html, MORPH);
    if (href === null || document.activeElement === active) return;
    const same = [...part.querySelectorAll("a")].find((one) => one.getAttribute("href") === href);
    same?.focus({ preventScroll: true });
  };

  const retry = () => setTimeout(() => waiting !== null && put(waiting));

  const begin = () => {
    if (stream !== null || document.hidden) return;
    stream = new EventSource(location.href);
    stream.addEventListener("live", (event) => put(event.data));
    stream.addEventListener("end", () => location.reload());
    stream.addEventListener("error", () => stream?.readyState === EventSource.CLOSED && refused());
  };

  // The response was not a stream, and browsers do not retry after that. Fetch the page to find out
  // its status.
  const refused = async () => {
    end();
    const answer = await fetch(location.href, { redirect: "manual" }).catch(() => null);
    answer?.body?.cancel();
    if (answer?.ok || answer === null || answer.status >= 500) setTimeout(begin, 5000);
    else location.reload();
  };

  const end = () => {
    stream?.close();
    stream = null;
  };

  const press = () => {
    clearTimeout(releasing);
    isPressed = true;
  };

  // On a touch screen, the click follows the end of the touch.
  const release = () => {
    clearTimeout(releasing);
    releasing = setTimeout(() => {
      isPressed = false;
      retry();
    }, 100);
  };

  if (part !== null) {
    begin();
    // Over HTTP/1.1, a browser opens at most six connections to a site. Hidden pages close theirs.
    document.addEventListener("visibilitychange", () => (document.hidden ? end() : begin()));
    window.addEventListener("pagehide", end);
    window.addEventListener("pageshow", begin);
    document.addEventListener("pointerdown", press, true);
    document.addEventListener("pointerup", release, true);
    document.addEventListener("pointercancel", release, true);
    // After the release of a scroll bar, or outside of the window, no event tells that it went up.
    document.addEventListener("pointermove", (event) => isPressed && !event.buttons && release());
    document.addEventListener("selectionchange", retry);
    part.addEventListener("focusout", retry);
    part.addEventListener("change", retry);
  }

  // After a form with errors, begin with the first one.
  document.querySelector("main [aria-invalid=true]")?.focus();

  document.addEventListener("pointerover", ({ target }) => {
    if (target.matches("time[datetime]")) addLocal(target);
  });

  // Ctrl-K leads to the search of this page, or of the content.
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    const search = document.querySelector("main input[type=search]");
    if (search === null) location.href = "/content";
    else search.select();
  });

  // A checkbox in a table's head selects all rows.
  document.addEventListener("change", (event) => {
    if (!event.target.matches("input[data-all]")) return;
    const boxes = event.target.closest("table").querySelectorAll("tbody input[type=checkbox]");
    boxes.forEach((box) => (box.checked = event.target.checked));
  });
})();
