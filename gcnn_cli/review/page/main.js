// The page: the lists, the keys and the decisions. Every decision goes to the server at once; its answer is shown.

import { Viewer } from "./viewer.js"

const WINDOWS = { soft: [-160, 240], bone: [-450, 1050] } // HU; the lung window comes from the server
const STEP_MM = 0.5
const NEW_DIAMETER_MM = 6
const VERDICTS = { open: "", accepted: "accepted", rejected: "rejected", unsure: "unsure" }
const THEMES = ["auto", "dark", "light"]

const $ = (selector) => document.querySelector(selector)
const state = { overview: null, cases: [], number: -1, entries: [], finishedAt: null, current: null, threshold: 0, opening: 0 }
const viewer = new Viewer($("#scan"), $("#rings"), { onPlace: showPlace, onMeasure: (mm) => announce(`${mm.toFixed(1)} mm`) })
let queue = Promise.resolve() // decisions one after the other
let waiting = 0 // decisions without an answer

// Talking with the server

async function ask(address, options) {
  let response
  try {
    response = await fetch(address, options)
  } catch {
    throw new Error("gcnn view has stopped; start it again, nothing is lost")
  }
  if (response.ok) return response
  throw new Error((await response.json()).error)
}

/** Send a decision; make() returns it when its turn comes, so that two quick keystrokes are two steps. */
function decide(make) {
  const { number } = state
  document.body.toggleAttribute("data-busy", ++waiting > 0)
  queue = queue.then(() => send(number, make())).finally(() => document.body.toggleAttribute("data-busy", --waiting > 0))
  return queue
}

async function send(number, decision) {
  if (!decision) return null
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(decision) }
  try {
    const answer = await (await ask(`review/${number}`, options)).json()
    if (number === state.number) takeReview(answer)
    return answer
  } catch (error) {
    announce(error.message)
    return null
  }
}

// Scans

async function openScan(number) {
  const turn = ++state.opening
  Object.assign(state, { number, entries: [], current: null })
  viewer.close()
  viewer.drawRings()
  $("#scan-name").textContent = state.cases[number].name
  document.title = `${state.cases[number].name} - gcnn view`
  showScans()
  loading("Reading the scan…")
  try {
    const review = await (await ask(`review/${number}`)).json()
    if (turn !== state.opening) return
    takeReview(review)
    const buffer = await (await ask(`scan/${number}`)).arrayBuffer()
    if (turn !== state.opening) return
    await viewer.open(buffer, windowOf($("#window").value))
    loading("")
    pick(state.current ?? visible()[0]?.key ?? null)
    document.body.dataset.ready = String(number)
  } catch (error) {
    if (turn === state.opening) loading(error.message)
  }
}

function loading(text) {
  if (text) delete document.body.dataset.ready
  $("#loading").textContent = text
  $("#loading").hidden = !text
}

function stepScan(count) {
  const number = state.number + count
  if (number >= 0 && number < state.cases.length) openScan(number)
}

// Findings

const isShown = (entry) => entry.probability === null || entry.verdict !== "open" || entry.probability >= state.threshold
const visible = () => state.entries.filter(isShown)
const currentEntry = () => state.entries.find((entry) => entry.key === state.current)

function takeReview(review) {
  const known = new Set(state.entries.map((entry) => entry.key))
  const added = review.entries.find((entry) => state.entries.length && !known.has(entry.key))
  state.entries = review.entries
  state.finishedAt = review.finished_at
  state.cases = review.cases
  if (added) state.current = added.key
  if (!currentEntry()) state.current = visible()[0]?.key ?? null
  state.canUndo = review.can_undo
  state.canRedo = review.can_redo
  showAll()
  showAgreements(review.agreements)
}

function pick(key) {
  state.current = key
  const entry = currentEntry()
  if (entry && viewer.isOpen) viewer.goTo(entry.position_mm)
  showAll()
  if (!isNarrow()) $("#findings [aria-current='true']")?.scrollIntoView({ block: "nearest" })
}

function step(count) {
  const shown = visible()
  const at = shown.findIndex((entry) => entry.key === state.current)
  const next = shown[Math.min(Math.max(at + count, 0), shown.length - 1)]
  if (next) pick(next.key)
}

const ACTS = {
  accept: () => about("accept"),
  reject: () => about("reject"),
  unsure: () => about("unsure"),
  clear: () => about("clear"),
  move: () => viewer.isOpen && about("move", { position_mm: viewer.place() }),
  smaller: () => resize(-STEP_MM),
  larger: () => resize(STEP_MM),
  add: () => viewer.isOpen && add(viewer.place()),
  undo: () => decide(() => ({ kind: "undo" })),
  redo: () => decide(() => ({ kind: "redo" })),
}

function about(kind, more = {}) {
  const key = state.current
  if (currentEntry()) return decide(() => ({ kind, key, ...more }))
  announce("No finding is chosen")
}

const add = (place) => decide(() => ({ kind: "add", position_mm: place, diameter_mm: NEW_DIAMETER_MM }))

function resize(change) {
  const { current, number } = state
  return decide(() => {
    const entry = number === state.number && state.entries.find((one) => one.key === current)
    if (!entry) return null
    const size = Math.round((entry.diameter_mm + change) / STEP_MM) * STEP_MM
    return { kind: "resize", key: current, diameter_mm: Math.max(1, size) }
  })
}

async function finish() {
  const done = state.finishedAt !== null
  const decision = done ? { kind: "reopen" } : { kind: "finish", threshold: state.threshold }
  const answer = await decide(() => decision)
  if (!answer || done) return
  const open = visible().filter((entry) => entry.verdict === "open").length
  const rest = open ? ` ${open} open ${open === 1 ? "finding counts" : "findings count"} as unsure.` : ""
  announce(`Finished: the scan is in the tables of ${state.overview.folder}.${rest} Page Down: next scan.`)
}

// What is shown

function showAll() {
  const shown = visible()
  $("#findings").replaceChildren(...shown.map(row))
  $("#no-findings").hidden = shown.length > 0
  viewer.entries = shown.map((entry) => ({ ...entry, number: numberOf(entry), current: entry.key === state.current }))
  viewer.drawRings()
  const chosen = Boolean(currentEntry())
  for (const button of document.querySelectorAll("[data-act]")) {
    const act = button.dataset.act
    button.disabled = act === "undo" ? !state.canUndo : act === "redo" ? !state.canRedo : act !== "add" && !chosen
  }
  $("#finish").setAttribute("aria-pressed", String(state.finishedAt !== null))
  $("#finish").textContent = state.finishedAt !== null ? "Finished" : "Finish scan"
  showScans()
  showThreshold()
}

const numberOf = (entry) => String(state.entries.indexOf(entry) + 1)

function row(entry) {
  const line = document.createElement("tr")
  line.setAttribute("aria-current", String(entry.key === state.current))
  const button = element("button", numberOf(entry))
  button.type = "button"
  button.title = "Go to this finding"
  const first = element("td", "")
  first.append(button)
  const decision = element("td", entry.key.startsWith("added") && entry.verdict === "accepted" ? "added" : VERDICTS[entry.verdict])
  decision.className = entry.verdict
  const probability = entry.probability === null ? "" : entry.probability.toFixed(3)
  line.append(first, element("td", probability), element("td", entry.diameter_mm.toFixed(1)), element("td", entry.probability === null ? "" : entry.fp_per_scan), decision)
  line.addEventListener("click", () => pick(entry.key))
  return line
}

function showScans() {
  $("#scans").replaceChildren(
    ...state.cases.map((one, number) => {
      const item = document.createElement("li")
      const button = document.createElement("button")
      button.type = "button"
      button.setAttribute("aria-current", String(number === state.number))
      button.title = one.problem || one.name
      const open = one.open.filter((probability) => probability === null || probability >= state.threshold).length
      const count = one.problem ? "not found" : one.finished ? "finished" : `${open} open, ${one.decided.length} decided`
      button.append(element("span", one.name, "name"), element("span", count, "count"))
      button.addEventListener("click", () => openScan(number))
      item.append(button)
      return item
    }),
  )
  const done = state.cases.filter((one) => one.finished).length
  $("#scans-done").textContent = `${done} of ${state.cases.length} finished`
}

function showThreshold() {
  const stop = state.overview.stops[Number($("#threshold").value)]
  if (!stop) {
    $("#threshold-text").textContent = "No finding in any scan."
    return
  }
  const found = state.entries.filter((entry) => entry.probability !== null)
  const here = found.filter((entry) => entry.probability >= state.threshold).length
  const rate = stop.rate === null ? "false alarms a scan unknown" : `${stop.fp_per_scan} false ${stop.fp_per_scan === "1" ? "alarm" : "alarms"} a scan`
  $("#threshold-text").textContent = `${stop.probability.toFixed(3)}: ${rate}; ${here} of ${found.length} findings in this scan`
}

function showAgreements(pairs) {
  const number = (value) => (value === null ? "" : value.toFixed(2))
  $("#readers").hidden = pairs.length === 0
  $("#pairs").replaceChildren(
    ...pairs.map((pair) => {
      const line = document.createElement("tr")
      const one = pair.first_only + pair.second_only
      for (const cell of [`${pair.first}, ${pair.second}`, pair.scans, pair.both, one, number(pair.agreement), number(pair.kappa)]) line.append(element("td", cell))
      return line
    }),
  )
}

function showPlace([x, y, z], hu) {
  $("#place").textContent = `x ${x.toFixed(1)}  y ${y.toFixed(1)}  z ${z.toFixed(1)} mm (LPS)   ${Math.round(hu)} HU`
}

function element(name, words, kind = "") {
  const made = document.createElement(name)
  made.textContent = words
  if (kind) made.className = kind
  return made
}

let hiding = 0
function announce(words) {
  $("#message").textContent = words
  $("#message").hidden = false
  clearTimeout(hiding)
  hiding = setTimeout(() => ($("#message").hidden = true), 6000)
}

// Controls

const isNarrow = () => matchMedia("(max-width: 50rem)").matches // the list is below the scan: it must not scroll it away
const windowOf = (name) => WINDOWS[name] ?? state.overview.window

function show(view) {
  for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === view))
  viewer.show(view)
}

function toggle(selector, act) {
  const on = $(selector).getAttribute("aria-pressed") !== "true"
  $(selector).setAttribute("aria-pressed", String(on))
  act(on)
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = theme
  $("#theme").textContent = `Theme: ${theme}`
  sessionStorage.setItem("theme", theme)
}

const KEYS = {
  n: () => step(1), p: () => step(-1), PageDown: () => stepScan(1), PageUp: () => stepScan(-1),
  a: ACTS.accept, r: ACTS.reject, u: ACTS.unsure, c: ACTS.clear, m: ACTS.move, "[": ACTS.smaller, "]": ACTS.larger, i: ACTS.add,
  z: ACTS.undo, y: ACTS.redo, d: finish,
  1: () => show("axial"), 2: () => show("coronal"), 3: () => show("sagittal"), 4: () => show("3d"), 5: () => show("all"),
  f: () => $("#zoom").click(), t: () => $("#measure").click(), "?": () => $("#help").showModal(),
  ArrowUp: () => viewer.isOpen && viewer.scroll(1), ArrowDown: () => viewer.isOpen && viewer.scroll(-1),
}

function listen() {
  // In the capture phase, since NiiVue has keys of its own on the canvas.
  window.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("#help").open) return
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key
    const isArrow = key.startsWith("Arrow")
    if (isArrow && event.target.matches("input, select")) return
    if (event.target === $("#scan")) event.stopImmediatePropagation()
    if (!(key in KEYS)) return
    event.preventDefault()
    if (!event.repeat || isArrow || key === "[" || key === "]") KEYS[key]()
  }, true)
  window.addEventListener("keyup", (event) => event.target === $("#scan") && event.stopImmediatePropagation(), true)
  for (const button of document.querySelectorAll("[data-act]")) button.addEventListener("click", () => ACTS[button.dataset.act]())
  for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => show(button.dataset.view))
  $("[data-step=next]").addEventListener("click", () => step(1))
  $("[data-step=previous]").addEventListener("click", () => step(-1))
  $("#finish").addEventListener("click", finish)
  $("#zoom").addEventListener("click", () => viewer.isOpen && toggle("#zoom", (on) => viewer.zoom(on)))
  $("#measure").addEventListener("click", () => toggle("#measure", (on) => viewer.measure(on)))
  $("#window").addEventListener("change", (event) => viewer.setWindow(windowOf(event.target.value)))
  $("#help-button").addEventListener("click", () => $("#help").showModal())
  $("#theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(sessionStorage.getItem("theme") ?? "auto") + 1) % THEMES.length]))
  $("#threshold").addEventListener("input", (event) => {
    state.threshold = state.overview.stops[Number(event.target.value)].probability
    if (!visible().some((entry) => entry.key === state.current)) state.current = visible()[0]?.key ?? null
    showAll()
  })
}

async function start() {
  setTheme(sessionStorage.getItem("theme") ?? "auto")
  try {
    state.overview = await (await ask("overview")).json()
    state.cases = state.overview.cases
    state.threshold = state.overview.stops[0]?.probability ?? 0
    $("#threshold").max = String(Math.max(state.overview.stops.length - 1, 0))
    $("#reader").textContent = `Reader: ${state.overview.reader}`
    $("#notice").textContent = `${state.overview.notice} gcnn ${state.overview.version}`
    listen()
    await viewer.start()
    if (isNarrow()) show("axial")
    const first = state.cases.findIndex((one) => !one.finished && !one.problem)
    await openScan(first < 0 ? 0 : first)
  } catch (error) {
    loading(error.message)
  }
}

start()
window.gcnnViewer = viewer // for tests
