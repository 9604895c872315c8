// Put in front of viser's page. viser draws as often as the screen can show, changed or not, and where page and training
// share a machine that is taken from training (twice the time per step with a software renderer on two cores). With this
// a page that nobody touches draws what the server sends in a fiftieth of the time, and otherwise almost never.
(() => {
  const SHARE = 50;      // a page at rest waits so many times what a picture costs before the next one
  const SOON = 150;      // ms from a message to its picture, at least: more messages come with it, images decode
  const REST = 2000;     // ms between pictures with no message
  const LONGEST = 8000;  // ms that anything waits
  const FIRST = 250;     // ms that anything waits first after a touch, then twice as long each time: answers still come
  const TOUCHED = 1500;  // ms of full speed after the last touch: the camera swings on
  const PLAYING = 12;    // messages in a second: the server plays something
  const SCREEN = 17;     // ms that a picture takes on a screen of 60 Hz, at no cost
  const frame = window.requestAnimationFrame.bind(window), drop = window.cancelAnimationFrame.bind(window);
  const running = new Map(), resting = new Map();
  let count = 0, until = performance.now() + 5000, timer = 0, due = Infinity, last = 0, cost = 0, calm = 0, told = [];

  const run = (id, callback) => running.set(id, frame(time => {
    running.delete(id);
    const begin = performance.now(), since = begin - last;
    if (begin < until && since > 1 && since < 1000) cost += 0.1 * (Math.max(0, since - SCREEN) - cost);
    last = begin;
    callback(time);
  }));
  const release = () => {
    clearTimeout(timer);
    due = Infinity;
    ++calm;
    for (const [id, callback] of resting) run(id, callback);
    resting.clear();
  };
  const release_at = time => {
    if (time >= due) return;
    clearTimeout(timer);
    due = time;
    timer = setTimeout(release, Math.max(0, due - performance.now()));
  };
  const wait = least => Math.min(LONGEST, FIRST * 2 ** calm, Math.max(least, SHARE * cost));

  window.requestAnimationFrame = callback => {
    const id = ++count;
    if (performance.now() < until) {
      run(id, callback);
    } else {
      resting.set(id, callback);
      release_at(last + wait(REST));
    }
    return id;
  };
  window.cancelAnimationFrame = id => {
    if (!resting.delete(id) && running.has(id)) {
      drop(running.get(id));
      running.delete(id);
    }
  };
  const wake = ms => {
    until = Math.max(until, performance.now() + ms);  // a touch does not cut the beginning short
    if (resting.size) release();
  };
  const message = () => {
    const now = performance.now();
    told = [...told.filter(time => time > now - 1000), now];
    if (told.length >= PLAYING) wake(1000);
    else release_at(Math.max(now + SOON, last + wait(SOON)));
  };
  for (const name of ["pointerdown", "pointermove", "pointerup", "wheel", "keydown", "keyup", "resize", "focus"]) {
    window.addEventListener(name, () => { wake(TOUCHED); calm = 0; }, {capture: true, passive: true});
  }
  const Plain = window.Worker;  // what the server says comes through one
  window.Worker = class extends Plain {
    constructor(...options) {
      super(...options);
      this.addEventListener("message", message);
    }
  };
})();
