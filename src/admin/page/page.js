// The page: asks this pod once a second for what the leader knows, and draws it. No library, nothing from elsewhere.
// All text comes into the document as text, never as markup.

const POLL_MS = 1000;
const AXIS = { left: 44, right: 10, top: 10, bottom: 22 };
const STEPS = { now: 'now', ahead: 'ahead', trust: 'trust', mode: 'mode', starting: 'starting', bounds: 'bounds', behavior: 'rates', unknown: 'unknown', down: 'down' };
const SIGHTS = { level: 'present level', highSeason: 'steepest days', seasonLevel: 'usual height', forecast80: 'forecast, 80 %', forecast99: 'forecast, 99 %', peakOfHour: 'peak of 1 h', peakOfSixHours: 'peak of 6 h', peakOfDay: 'peak of 1 d' };
const SHADOW_COLOURS = { HPA: '--hpa', KPA: '--kpa' };

const byId = (id) => document.getElementById(id);
const calm = matchMedia('(prefers-reduced-motion: reduce)');
const state = { plan: null, history: null, forecast: null, decisions: null, receivedAt: 0, hover: null };

// === asking ===

async function ask(what) {
  const response = await fetch(`/api/v1/${what}`, { signal: AbortSignal.timeout(3000) });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error);
  return body;
}

async function poll() {
  try {
    const plan = await ask('plan');
    if (!known(plan.plan)) {
      // Nobody leads: the pod that was asked says what it knows is wrong, and what was drawn last stays.
      alive(false, 'no leader answers', plan.conditions);
      return;
    }
    const [history, forecast, decisions] = await Promise.all(['history', 'forecast', 'decisions'].map(ask));
    Object.assign(state, { plan, history, forecast, decisions, receivedAt: performance.now() });
    write();
    alive(true);
  } catch (error) {
    alive(false, error.name === 'Error' ? error.message : 'this pod does not answer');
  } finally {
    setTimeout(poll, POLL_MS);
  }
}

function alive(is, why, wrong = []) {
  byId('live').className = is ? 'dot good' : 'dot bad';
  byId('live').title = is ? 'live' : why;
  const conditions = is ? state.plan.conditions : [{ text: `Not up to date: ${why}`, remedy: state.plan ? 'What is shown is the last that was known.' : null }, ...wrong];
  fill('conditions', conditions.map((condition) => {
    const line = make('p', condition.text);
    if (condition.remedy) line.append(make('em', condition.remedy));
    return line;
  }));
  byId('conditions').hidden = conditions.length === 0;
}

// === words and numbers ===

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

const fill = (id, children) => byId(id).replaceChildren(...children);
const put = (id, text) => { if (byId(id).textContent !== text) byId(id).textContent = text; };
const known = (value) => value !== null && value !== undefined;

function figure(id, value, unit) {
  const element = byId(id);
  element.textContent = value;
  if (unit) element.append(make('i', ` ${unit}`));
}

function number(value) {
  if (!known(value)) return '–';
  if (value !== 0 && Math.abs(value) < 9.95) return value.toFixed(1);
  return Math.round(value).toLocaleString('en');
}

const count = (value) => known(value) ? value.toLocaleString('en') : '–';
const plural = (value, word) => `${count(value)} ${word}${value === 1 ? '' : 's'}`;

function duration(seconds) {
  const parts = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  let rest = Math.round(seconds);
  const shown = [];
  for (const [unit, length] of parts) {
    const whole = Math.floor(rest / length);
    rest -= whole * length;
    if (whole > 0 && shown.length < 2) shown.push(`${whole} ${unit}`);
  }
  return shown.join(' ') || '0 s';
}

const clock = (millis, withSeconds) => new Date(millis).toISOString().slice(11, withSeconds ? 19 : 16);

// The forecast at a time, between two of its points.
function forecastAt(millis) {
  const points = state.forecast?.points ?? [];
  const after = points.findIndex((point) => point.at >= millis);
  if (after < 0) return points.at(-1);
  if (after === 0) return points[0];
  const [a, b] = [points[after - 1], points[after]];
  const share = (millis - a.at) / (b.at - a.at);
  const mix = (key) => a[key] + (b[key] - a[key]) * share;
  return { at: millis, point: mix('point'), lower: mix('lower'), upper: mix('upper') };
}

function write() {
  const { plan, forecast, decisions } = state;
  const { replicas } = plan;
  document.title = `${replicas.ready}/${replicas.spec} · ${plan.workload}`;
  put('workload', plan.workload);
  put('mode', plan.acts ? plan.mode : `${plan.mode}, writes nothing`);
  put('leader', plan.leader ?? 'none');
  put('term', plan.leaderChanges > 0 ? `${plan.term}, ${plural(plan.leaderChanges, 'takeover')}` : `${plan.term}`);
  byId('speed-chip').hidden = plan.speed === 1;
  put('speed', `× ${plan.speed}`);
  figure('arrivals', number(plan.arrivalsPerSecond), 'requests/s');
  put('in-flight', `${number(plan.inFlight)} in flight`);
  figure('ready', `${replicas.ready} / ${replicas.spec}`, 'pods');
  const others = [[replicas.starting, 'starting'], [replicas.unknown, 'unknown']].filter(([n]) => n > 0).map(([n, word]) => `${n} ${word}`);
  put('starting', `${others.length ? others.join(', ') : 'none starting'} · ${replicas.min} to ${replicas.max}`);
  const lead = plan.leadTimeSeconds;
  const ahead = known(lead) ? forecastAt(plan.now + lead * 1000) : undefined;
  figure('ahead', ahead ? `${number(ahead.point)}` : '–', ahead ? `to ${number(ahead.upper)}/s` : '');
  put('ahead-replicas', known(plan.plan.neededAhead) ? `needs ${plural(plan.plan.neededAhead, 'pod')}` : 'nothing learnt yet');
  put('lead-time', known(lead) ? duration(lead) : '–');
  writeAdvice(plan.advice);
  figure('trust', `${Math.round(forecast.trust * 100)}`, '%');
  const seasons = forecast.seasons.map((season) => duration(season.period.secs));
  put('seasons', seasons.length ? `seasons found: ${seasons.join(', ')}` : 'no season found yet');
  byId('late-tile').hidden = !known(plan.sloViolations);
  put('late', count(plan.sloViolations));
  put('late-shadows', plan.shadows.map((shadow) => `${shadow.name} ${count(shadow.sloViolations)}`).join(' · '));
  put('plan-size', `${plural(plan.plan.desired, 'replica')}`);
  fill('reasons', plan.plan.reasons.length ? plan.plan.reasons.map(reason) : [make('li', 'No plan yet.', 'none')]);
  writeDecisions(decisions);
  writeLegends();
  put('version', `sidescale ${plan.version}`);
}

// The way to decide that is followed: how it looks ahead, what it keeps in hand, and what that cost of late.
function writeAdvice(advice) {
  if (!known(advice)) {
    put('way', '–');
    put('record', 'nothing learnt yet');
    return;
  }
  const { sight, headroom, hold, drain } = advice.candidate;
  figure('way', SIGHTS[sight] ?? sight, `× ${headroom.toFixed(2)}`);
  put('record', `of ${advice.compared} · ${number(advice.podHours)} pod-hours, ${count(Math.round(advice.late))} late`);
  byId('record').title = `keeps a pod for ${duration(hold.secs)}, clears a backlog in ${duration(drain.secs)}`;
}

function reason({ step, text }) {
  const item = make('li');
  item.append(make('span', STEPS[step] ?? step), make('div', text));
  return item;
}

// Rebuilt only when there is a new one, so that what a reader has opened stays open.
let newestShown = null;
function writeDecisions(decisions) {
  const newest = decisions.at(-1)?.at ?? null;
  if (newest === newestShown) return;
  newestShown = newest;
  const open = new Set([...document.querySelectorAll('details[open]')].map((element) => element.dataset.at));
  fill('decisions', decisions.slice(-14).reverse().map((decision) => {
    const { at, from, to, acted, reasons } = decision;
    const element = make('details');
    element.dataset.at = at;
    element.open = open.has(String(at));
    const summary = make('summary');
    const wanted = to > from ? ['ahead', 'now'] : ['down', 'now'];
    const headline = wanted.map((step) => reasons.find((one) => one.step === step)).find(known) ?? reasons[0];
    const size = make('b', `${from} → ${to}`, to > from ? 'up' : 'down');
    if (!acted) size.append(make('i', ' (not written)'));
    summary.append(make('time', clock(at, true)), size, make('span', headline?.text ?? ''));
    const list = make('ol', undefined, 'reasons');
    list.append(...reasons.map(reason));
    element.append(summary, list);
    return element;
  }));
}

// === series ===

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const last = (column) => column?.findLast(known);

function replicaSeries() {
  const { history } = state;
  const shadows = history.shadows.map(({ name, desired }) => ({ name: `${name} would ask`, values: desired, colour: SHADOW_COLOURS[name] ?? '--faint', dash: name === 'HPA' ? [6, 4] : [2, 3], width: 1.5 }));
  return [
    ...shadows,
    { name: 'ready', values: history.ready, colour: '--ready', fill: '--ready-fill', width: 2 },
    { name: 'asked for', values: history.desired, colour: '--asked', width: 2 },
  ];
}

function loadSeries() {
  const { history } = state;
  return [
    { name: 'forecast one lead time before', values: history.expected, colour: '--expected', dash: [2, 3], width: 1.5 },
    { name: 'requests/s', values: history.arrivals, colour: '--load', width: 2 },
  ];
}

function legend(id, series, band) {
  // What is drawn last, on top, is named first.
  const items = series.toReversed().map((one) => {
    const value = last(one.values);
    return [one.name, one.colour, one.dash, known(value) ? number(value) : null];
  });
  if (band) items.push(['forecast and its band', '--load', null, null, true]);
  fill(id, items.map(([name, tint, dash, value, isBand]) => {
    const item = make('li');
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    svg.setAttribute('width', 20);
    svg.setAttribute('height', 10);
    const mark = document.createElementNS('http://www.w3.org/2000/svg', isBand ? 'rect' : 'line');
    const attributes = isBand
      ? { x: 0, y: 1, width: 20, height: 8, rx: 2, fill: colour('--band') }
      : { x1: 0, y1: 5, x2: 20, y2: 5, stroke: colour(tint), 'stroke-width': 2.5, 'stroke-dasharray': dash ? dash.join(' ') : 'none' };
    for (const [key, setting] of Object.entries(attributes)) mark.setAttribute(key, setting);
    svg.append(mark);
    item.append(svg, make('span', name));
    if (value !== null) item.append(make('b', value));
    return item;
  }));
}

function writeLegends() {
  legend('load-legend', loadSeries(), state.forecast.points.length > 0);
  legend('replicas-legend', replicaSeries(), false);
}

// === drawing ===

// The leader's clock now, running on between two answers.
function present() {
  const since = calm.matches ? 0 : Math.min(performance.now() - state.receivedAt, 3 * POLL_MS);
  return state.plan.now + since * state.plan.speed;
}

// What part of time is shown: the forecast takes the right third at most.
function span(now) {
  const points = state.forecast.points;
  const reach = points.length ? Math.max(points.at(-1).at - now, 30_000) : 30_000;
  const past = now - (state.history.at[0] ?? now);
  const shownPast = Math.max(Math.min(past, Math.max(reach * 2.5, 600_000)), 120_000);
  return { from: now - shownPast, to: now + Math.min(reach, shownPast * 0.5) };
}

// A round number above the value whose quarters are round as well: whole ones for pods.
function ceiling(value, isRate) {
  const magnitude = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  const steps = isRate || magnitude >= 10 ? [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10, 12] : [4, 8, 12];
  return magnitude * steps.find((step) => step * magnitude >= value - 1e-9);
}

// The scale follows slowly downwards, so that a passing peak does not make the picture jump.
const tops = {};
function eased(id, wanted) {
  const before = tops[id] ?? wanted;
  const next = calm.matches ? wanted : before + (wanted - before) * 0.12;
  tops[id] = Math.abs(next - wanted) < wanted * 0.004 ? wanted : next;
  return tops[id];
}

function plot(id, now, series, band) {
  const canvas = byId(id);
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext('2d');
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const { from, to } = span(now);
  const shown = state.history.at.map((at) => at >= from);
  const highest = Math.max(
    ...series.flatMap(({ values }) => values.filter((value, row) => shown[row] && known(value))),
    ...(band ?? []).filter((point) => point.at <= to).map((point) => point.upper), band ? 1 : 4,
  );
  const wanted = ceiling(highest * 1.06, Boolean(band));
  const top = eased(id, wanted);
  const area = { left: AXIS.left, right: width - AXIS.right, top: AXIS.top, bottom: height - AXIS.bottom };
  const x = (at) => area.left + (at - from) / (to - from) * (area.right - area.left);
  const y = (value) => area.bottom - value / top * (area.bottom - area.top);
  grid(pen, area, wanted, top, y, x, from, to);
  pen.save();
  pen.beginPath();
  pen.rect(area.left, 0, area.right - area.left, area.bottom + 1);
  pen.clip();
  future(pen, area, x, now);
  if (band?.length) drawBand(pen, band, x, y, now);
  for (const one of series) drawSeries(pen, one, x, y, Boolean(band), now);
  if (band && state.plan.acts === false) note(pen, area, `${state.plan.mode === 'observe' ? 'observing: ' : ''}nothing is written`);
  if (state.hover !== null) rule(pen, area, state.hover * (area.right - area.left) + area.left, '--faint');
  pen.restore();
}

function grid(pen, area, wanted, top, y, x, from, to) {
  pen.font = '12px system-ui, sans-serif';
  pen.strokeStyle = colour('--line');
  pen.fillStyle = colour('--faint');
  pen.lineWidth = 1;
  pen.textAlign = 'right';
  pen.textBaseline = 'middle';
  const rows = 4;
  for (let row = 0; row <= rows; row += 1) {
    const value = wanted * row / rows;
    const height = Math.round(y(value)) + 0.5;
    if (height < area.top - 4) continue;
    pen.beginPath();
    pen.moveTo(area.left, height);
    pen.lineTo(area.right, height);
    pen.stroke();
    pen.fillText(value >= 10_000 ? `${(value / 1000).toFixed(0)}k` : String(Math.round(value * 10) / 10), area.left - 8, height);
  }
  pen.textAlign = 'center';
  pen.textBaseline = 'alphabetic';
  const room = (area.right - area.left) / 84;
  const choices = [10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400].map((secs) => secs * 1000);
  const step = choices.find((choice) => (to - from) / choice <= room) ?? choices.at(-1);
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    const place = x(at);
    if (place > area.left + 16 && place < area.right - 16) pen.fillText(clock(at, step < 60_000), place, area.bottom + 16);
  }
}

function rule(pen, area, place, tint, dash) {
  pen.strokeStyle = colour(tint);
  pen.lineWidth = 1;
  pen.setLineDash(dash ?? []);
  pen.beginPath();
  pen.moveTo(Math.round(place) + 0.5, area.top - 4);
  pen.lineTo(Math.round(place) + 0.5, area.bottom);
  pen.stroke();
  pen.setLineDash([]);
}

// Where the present is, and where a pod asked for now would be ready.
function future(pen, area, x, now) {
  rule(pen, area, x(now), '--soft');
  pen.font = '12px system-ui, sans-serif';
  pen.fillStyle = colour('--soft');
  pen.textAlign = 'right';
  pen.fillText('now', x(now) - 6, area.top + 8);
  const lead = state.plan.leadTimeSeconds;
  if (!known(lead) || x(now + lead * 1000) > area.right) return;
  rule(pen, area, x(now + lead * 1000), '--faint', [3, 4]);
  pen.textAlign = 'left';
  const room = area.right - x(now + lead * 1000) - 6;
  const words = ['asked now, ready here', 'ready here'].find((text) => pen.measureText(text).width <= room);
  if (words) pen.fillText(words, x(now + lead * 1000) + 6, area.top + 8);
}

function note(pen, area, text) {
  pen.font = '12px system-ui, sans-serif';
  pen.fillStyle = colour('--warn');
  pen.textAlign = 'left';
  pen.fillText(text, area.left + 8, area.top + 8);
}

function drawBand(pen, points, x, y, now) {
  const ahead = [{ ...forecastAt(now), at: now }, ...points.filter((point) => point.at > now)];
  pen.beginPath();
  ahead.forEach((point, i) => pen[i ? 'lineTo' : 'moveTo'](x(point.at), y(point.upper)));
  ahead.toReversed().forEach((point) => pen.lineTo(x(point.at), y(point.lower)));
  pen.closePath();
  pen.fillStyle = colour('--band');
  pen.fill();
  pen.beginPath();
  ahead.forEach((point, i) => pen[i ? 'lineTo' : 'moveTo'](x(point.at), y(point.point)));
  pen.strokeStyle = colour('--load');
  pen.lineWidth = 2;
  pen.setLineDash([5, 4]);
  pen.stroke();
  pen.setLineDash([]);
}

// Rates are lines, replicas are steps. A row that is not known breaks the line.
function drawSeries(pen, { values, colour: tint, fill: under, dash, width }, x, y, isRate, now) {
  const { at } = state.history;
  const path = new Path2D();
  const floor = new Path2D();
  let [before, start, end] = [null, null, null];
  const close = () => {
    if (before === null) return;
    floor.lineTo(end, y(0));
    floor.lineTo(start, y(0));
    floor.closePath();
  };
  values.forEach((value, row) => {
    if (!known(value)) {
      close();
      before = null;
      return;
    }
    const [px, py] = [x(at[row]), y(value)];
    if (before === null) {
      path.moveTo(px, py);
      floor.moveTo(px, py);
      start = px;
    } else {
      if (!isRate) [path, floor].forEach((one) => one.lineTo(px, y(before)));
      [path, floor].forEach((one) => one.lineTo(px, py));
    }
    [before, end] = [value, px];
  });
  // Steps hold until now; a rate has no value before its second is over.
  if (before !== null && !isRate) {
    end = x(now);
    [path, floor].forEach((one) => one.lineTo(end, y(before)));
  }
  close();
  if (under) {
    pen.fillStyle = colour(under);
    pen.fill(floor);
  }
  pen.strokeStyle = colour(tint);
  pen.lineWidth = width;
  pen.lineJoin = 'round';
  pen.setLineDash(dash ?? []);
  pen.stroke(path);
  pen.setLineDash([]);
}

// === pointing ===

function point(event) {
  const box = event.currentTarget.getBoundingClientRect();
  const share = (event.clientX - box.left - AXIS.left) / (box.width - AXIS.left - AXIS.right);
  state.hover = share >= 0 && share <= 1 ? share : null;
  state.pointer = event;
  tip();
}

function tip() {
  const box = byId('tip');
  box.hidden = state.hover === null || !state.plan;
  if (box.hidden) return;
  const { from, to } = span(present());
  const at = from + state.hover * (to - from);
  const rows = [[clock(at, true), '']];
  if (at > present()) {
    const ahead = forecastAt(at);
    if (ahead) rows.push(['forecast', `${number(ahead.point)}/s`], ['band', `${number(ahead.lower)} to ${number(ahead.upper)}`]);
  } else {
    const after = state.history.at.findIndex((time) => time >= at);
    const row = after < 0 ? state.history.at.length - 1 : after;
    for (const { name, values } of [...loadSeries().toReversed(), ...replicaSeries().toReversed()]) {
      if (known(values[row])) rows.push([name, number(values[row])]);
    }
  }
  box.replaceChildren(...rows.map(([name, value]) => {
    const line = make('p');
    line.append(make('span', name), make('b', value));
    return line;
  }));
  const card = document.querySelector('.charts').getBoundingClientRect();
  const left = state.pointer.clientX - card.left;
  box.style.transform = `translate(${left > card.width / 2 ? left - box.offsetWidth - 14 : left + 14}px, ${state.pointer.clientY - card.top + 14}px)`;
}

// === running ===

function draw() {
  if (state.plan && state.history) {
    const now = present();
    put('time', clock(now, true));
    plot('load', now, loadSeries(), state.forecast.points);
    plot('replicas', now, replicaSeries(), null);
    const { replicas, arrivalsPerSecond } = state.plan;
    byId('load').setAttribute('aria-label', `Load: ${number(arrivalsPerSecond)} requests a second now`);
    byId('replicas').setAttribute('aria-label', `Replicas: ${replicas.spec} asked for, ${replicas.ready} ready`);
  }
  // Twenty pictures a second look smooth at this pace and leave the processor to the fleet.
  setTimeout(() => requestAnimationFrame(draw), calm.matches ? POLL_MS : 50);
}

for (const id of ['load', 'replicas']) {
  byId(id).addEventListener('pointermove', point);
  byId(id).addEventListener('pointerleave', () => { state.hover = null; tip(); });
}
poll();
draw();
