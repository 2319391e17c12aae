// Drawing on top of the slices: rings around the findings, letters for the patient's sides, the measured line.
//
// NiiVue lists the tiles that it has drawn (screenSlices). Each tells which millimeters it shows, in RAS: leftTopMM at
// its left and lower edge and fovMM across, negative where the patient's right is on the left. A slice is one of the
// scan's own: in an oblique scan its plane is tilted against the patient's axes, and AxyzMxy holds a point and two slopes.

const AXIAL = 0
const CORONAL = 1
const RENDER = 4
const AXES = { 0: [0, 1, 2], 1: [0, 2, 1], 2: [1, 2, 0] } // right, up and through the plane, as axes of RAS
const SIDES = [["L", "R"], ["P", "A"], ["F", "H"]] // at the low and at the high end of each axis of RAS
const GAP_MM = 2 // between a nodule's edge and its ring, so that the ring hides nothing
const COLORS = { open: "#ffc53d", accepted: "#5ee07f", rejected: "#ff7d70", unsure: "#c09cff" }
const LINE = "#7fe3ff"
const CROSS = "rgba(110, 180, 255, 0.75)"
const CROSS_GAP = 14 // CSS pixels left free in its middle

export const toRas = ([x, y, z]) => [-x, -y, z]
export const toLps = ([x, y, z]) => [-x, -y, z]

/** Coordinate of a slice's plane along its third axis of RAS, below a point (across, up) of the other two. */
function planeAt({ AxyzMxy: [x, y, z, slopeX, slopeY] }, across, up) {
  return z + slopeY * (up - y) - slopeX * (across - x)
}

/** Pixel of the canvas where a slice tile shows a position (RAS, mm); depth is the distance from the slice in mm. */
export function onTile(tile, ras) {
  const [across, up, through] = AXES[tile.axCorSag]
  const [left, top, width, height] = tile.leftTopWidthHeight
  const steepness = Math.hypot(1, tile.AxyzMxy[3], tile.AxyzMxy[4])
  return {
    x: left + ((ras[across] - tile.leftTopMM[0]) / tile.fovMM[0]) * width,
    y: top + height - ((ras[up] - tile.leftTopMM[1]) / tile.fovMM[1]) * height,
    depth: (ras[through] - planeAt(tile, ras[across], ras[up])) / steepness,
    perMm: Math.abs(width / tile.fovMM[0]),
  }
}

/** Position (RAS, mm) under a pixel of the canvas, with its tile; null beside the slices. */
export function underPixel(tiles, x, y) {
  for (const tile of tiles.filter((one) => one.axCorSag < 3)) {
    const [left, top, width, height] = tile.leftTopWidthHeight
    if (x < left || y < top || x > left + width || y > top + height) continue
    const [across, up, through] = AXES[tile.axCorSag]
    const ras = [0, 0, 0]
    ras[across] = tile.leftTopMM[0] + ((x - left) / width) * tile.fovMM[0]
    ras[up] = tile.leftTopMM[1] + ((top + height - y) / height) * tile.fovMM[1]
    ras[through] = planeAt(tile, ras[across], ras[up])
    return { ras, plane: tile.axCorSag }
  }
  return null
}

/** Draw everything anew. scene: tiles, place (RAS), project (RAS -> pixel of the 3D tile), halfSlice (mm), entries, line. */
export function draw(context, scale, scene) {
  const { canvas } = context
  context.setTransform(1, 0, 0, 1, 0, 0)
  context.clearRect(0, 0, canvas.width, canvas.height)
  for (const tile of scene.tiles) {
    const [left, top, width, height] = tile.leftTopWidthHeight
    context.save()
    context.beginPath()
    context.rect(left, top, width, height)
    context.clip()
    if (tile.axCorSag === RENDER) drawIn3D(context, scale, scene, tile)
    else drawOnSlice(context, scale, scene, tile)
    context.restore()
  }
}

function drawOnSlice(context, scale, scene, tile) {
  const through = AXES[tile.axCorSag][2]
  crosshair(context, scale, tile, onTile(tile, scene.place))
  for (const entry of scene.entries) {
    const at = onTile(tile, toRas(entry.position_mm))
    const reach = Math.max(entry.diameter_mm / 2, scene.halfSlice[through])
    if (Math.abs(at.depth) <= reach) ring(context, scale, at, (entry.diameter_mm / 2 + GAP_MM) * at.perMm, entry)
  }
  if (scene.line && scene.line.plane === tile.axCorSag) drawLine(context, scale, scene, tile, through)
  letters(context, scale, tile)
}

function crosshair(context, scale, tile, { x, y }) {
  const [left, top, width, height] = tile.leftTopWidthHeight
  const gap = CROSS_GAP * scale
  context.strokeStyle = CROSS
  context.lineWidth = scale
  context.beginPath()
  for (const [x0, y0, x1, y1] of [[left, y, x - gap, y], [x + gap, y, left + width, y], [x, top, x, y - gap], [x, y + gap, x, top + height]]) {
    context.moveTo(x0, y0)
    context.lineTo(x1, y1)
  }
  context.stroke()
}

function ring(context, scale, at, radius, entry) {
  context.strokeStyle = context.fillStyle = COLORS[entry.verdict]
  context.lineWidth = (entry.current ? 2.5 : 1.25) * scale
  context.setLineDash(entry.verdict === "open" ? [5 * scale, 4 * scale] : [])
  context.beginPath()
  context.arc(at.x, at.y, Math.max(radius, 5 * scale), 0, 2 * Math.PI)
  context.stroke()
  context.setLineDash([])
  const side = Math.max(radius, 5 * scale) * Math.SQRT1_2 + 3 * scale
  text(context, scale, entry.number, at.x + side, at.y - side, "left")
}

function drawIn3D(context, scale, scene, tile) {
  for (const entry of scene.entries) {
    const at = scene.project(toRas(entry.position_mm), tile)
    ring(context, scale, at, (entry.diameter_mm / 2 + GAP_MM) * at.perMm, entry)
  }
}

function drawLine(context, scale, scene, tile, through) {
  const [from, to] = [scene.line.from, scene.line.to].map((ras) => onTile(tile, ras))
  if (Math.abs(from.depth) > scene.halfSlice[through]) return
  context.strokeStyle = context.fillStyle = LINE
  context.lineWidth = 1.5 * scale
  context.beginPath()
  context.moveTo(from.x, from.y)
  context.lineTo(to.x, to.y)
  context.stroke()
  for (const end of [from, to]) context.fillRect(end.x - 2 * scale, end.y - 2 * scale, 4 * scale, 4 * scale)
  text(context, scale, `${lengthOf(scene.line).toFixed(1)} mm`, to.x + 7 * scale, to.y, "left")
}

export const lengthOf = ({ from, to }) => Math.hypot(...from.map((value, axis) => value - to[axis]))

/** The patient's sides at the edges of a slice. */
function letters(context, scale, tile) {
  const [left, top, width, height] = tile.leftTopWidthHeight
  const [across, up] = AXES[tile.axCorSag]
  const mirrored = tile.fovMM[0] < 0
  const [first, last] = mirrored ? [...SIDES[across]].reverse() : SIDES[across]
  context.fillStyle = "#fff"
  text(context, scale, first, left + 6 * scale, top + height / 2, "left")
  text(context, scale, last, left + width - 6 * scale, top + height / 2, "right")
  text(context, scale, SIDES[up][1], left + width / 2, top + 12 * scale, "center")
  text(context, scale, SIDES[up][0], left + width / 2, top + height - 10 * scale, "center")
}

function text(context, scale, words, x, y, align) {
  context.font = `600 ${13 * scale}px system-ui, sans-serif`
  context.textAlign = align
  context.textBaseline = "middle"
  const color = context.fillStyle
  const width = context.lineWidth
  context.strokeStyle = "#000"
  context.lineWidth = 3 * scale
  context.strokeText(words, x, y)
  context.fillStyle = color
  context.lineWidth = width
  context.fillText(words, x, y)
}

export const PLANES = { axial: AXIAL, coronal: CORONAL, sagittal: 2, "3d": RENDER, all: 3 }
