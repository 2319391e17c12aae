// The scan on the page: NiiVue, with rings and a measuring tool on top. All positions outside are LPS millimeters.

import { Niivue, NVImage } from "./niivue.js"
import { PLANES, draw, lengthOf, toLps, toRas, underPixel } from "./rings.js"

const GRID = 2 // NiiVue's layout of two by two
const NEVER = 0 // whether 3D stands beside the slices
const ALWAYS = 1
const CROSSHAIR = 8
const WINDOWING = 9
const ZOOM = 4
const FRONT = 180 // azimuth of a view from the front
const MOST_WITHOUT_GPU = 8e6 // voxels; computing 3D of more takes seconds for each picture without a graphics processor

export class Viewer {
  /** onPlace(lps, hu) is called when the crosshair moves, onMeasure(mm) when a line is measured. */
  constructor(canvas, overlay, { onPlace, onMeasure }) {
    this.canvas = canvas
    this.overlay = overlay
    this.onPlace = onPlace
    this.onMeasure = onMeasure
    this.entries = []
    this.line = null
    this.zoomed = false
    this.view = "all"
    this.still = false // nothing is drawn while it is set
    this.niivue = new Niivue({
      isSliceMM: true, // the scan's slices in the patient's frame: positions are exact in oblique scans too
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      isOrientationTextVisible: false, // the overlay writes the letters
      isColorbar: false,
      isRuler: false,
      loadingText: "",
      logLevel: "error",
      dragAndDropEnabled: false,
      multiplanarShowRender: ALWAYS,
      multiplanarLayout: GRID,
      crosshairWidth: 0, // the overlay draws it, as thin as a pixel at any zoom
      backColor: [0, 0, 0, 1],
      clipPlaneColor: [0, 0, 0, 0],
      viewModeHotKey: "",
      clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "",
      mouseEventConfig: {
        leftButton: { primary: CROSSHAIR },
        rightButton: WINDOWING,
        centerButton: CROSSHAIR,
      },
    })
    this.niivue.onLocationChange = () => this.#moved()
    // A double click and a long touch bring back the chosen window, not one that NiiVue computes.
    this.niivue.resetBriCon = () => this.setWindow(this.window)
  }

  async start() {
    await this.niivue.attachToCanvas(this.canvas)
    this.niivue.setSliceType(PLANES.all)
    const drawScene = this.niivue.drawScene.bind(this.niivue)
    this.niivue.drawScene = () => {
      if (this.still) return ""
      const drawn = drawScene()
      this.drawRings()
      return drawn
    }
    this.#listenToRuler()
    new ResizeObserver(() => this.niivue.resizeListener()).observe(this.canvas.parentElement)
  }

  get isOpen() {
    return this.niivue.volumes.length > 0
  }

  /** Show a scan; buffer: its NIfTI file. */
  async open(buffer, window) {
    this.close()
    this.window = window
    const [low, high] = window
    const { niivue } = this
    const image = await NVImage.loadFromUrl({ url: "scan.nii", name: "scan.nii", buffer, colormap: "gray", cal_min: low, cal_max: high })
    const [, columns, rows, slices] = image.hdr.dims
    this.has3dBeside = columns * rows * slices <= MOST_WITHOUT_GPU || !isComputed(niivue.gl)
    niivue.opts.multiplanarShowRender = this.has3dBeside ? ALWAYS : NEVER
    this.still = true // until the crosshair stands: one picture instead of four
    niivue.addVolume(image)
    niivue.setRenderAzimuthElevation(FRONT, 0)
    this.goTo(toLps(this.#middle()))
    this.still = false
    niivue.drawScene()
  }

  close() {
    for (const image of [...this.niivue.volumes]) this.niivue.removeVolume(image)
    this.line = null
    this.entries = []
  }

  /** Put the crosshair to a position. */
  goTo(lps) {
    const { niivue } = this
    niivue.scene.crosshairPos = niivue.mm2frac(toRas(lps), 0, true)
    if (this.zoomed) this.#center()
    this.#cut()
    niivue.createOnLocationChange()
    niivue.drawScene()
  }

  /** Position of the crosshair. */
  place() {
    return toLps(Array.from(this.niivue.frac2mm(this.niivue.scene.crosshairPos, 0, true)).slice(0, 3))
  }

  /** HU of the voxel at the crosshair. */
  value() {
    const image = this.niivue.volumes[0]
    const [i, j, k] = image.mm2vox(toRas(this.place()))
    return image.getValue(i, j, k)
  }

  show(view) {
    this.view = view
    this.#cut()
    this.niivue.setSliceType(PLANES[view])
  }

  setWindow(window) {
    this.window = window
    const [low, high] = window
    const image = this.niivue.volumes[0]
    if (!image) return
    image.cal_min = low
    image.cal_max = high
    this.niivue.updateGLVolume()
  }

  /** Enlarge around the crosshair, or show everything again. */
  zoom(on) {
    this.zoomed = on
    if (on) this.#center()
    else this.niivue.setPan2Dxyzmm([0, 0, 0, 1])
    this.niivue.drawScene()
  }

  /** Move by a number of the scan's slices towards the head. */
  scroll(count) {
    const [x, y, z] = this.niivue.scene.crosshairPos
    const next = Math.min(Math.max(z + count / this.niivue.volumes[0].dimsRAS[3], 0), 1)
    this.goTo(toLps(Array.from(this.niivue.frac2mm([x, y, next], 0, true)).slice(0, 3)))
  }

  measure(on) {
    this.overlay.classList.toggle("measuring", on)
    if (!on) this.line = null
    this.drawRings()
  }

  drawRings() {
    const { canvas, overlay, niivue } = this
    if (overlay.width !== canvas.width || overlay.height !== canvas.height) {
      overlay.width = canvas.width
      overlay.height = canvas.height
    }
    const context = overlay.getContext("2d")
    if (!this.isOpen) {
      context.clearRect(0, 0, overlay.width, overlay.height)
      return
    }
    draw(context, this.#scale(), {
      tiles: niivue.screenSlices,
      place: toRas(this.place()),
      project: (ras, tile) => this.#project(ras, tile),
      halfSlice: this.#halfSlice(),
      entries: this.entries,
      line: this.line,
    })
  }

  #moved() {
    if (!this.isOpen) return
    if (this.#cut()) this.niivue.drawScene()
    this.onPlace(this.place(), this.value())
  }

  /** Canvas pixels per CSS pixel. */
  #scale() {
    return this.canvas.width / this.canvas.clientWidth
  }

  #middle() {
    const { extentsMin, extentsMax } = this.niivue.volumeObject3D
    return [0, 1, 2].map((axis) => (extentsMin[axis] + extentsMax[axis]) / 2)
  }

  #center() {
    const place = toRas(this.place())
    this.niivue.setPan2Dxyzmm([...this.#middle().map((middle, axis) => middle - ZOOM * place[axis]), ZOOM])
  }

  /** Half the distance of neighboring slices, along the scan's axes nearest to the patient's x, y and z. */
  #halfSlice() {
    return Array.from(this.niivue.volumes[0].pixDimsRAS.slice(1, 4), (spacing) => spacing / 2)
  }

  /** Cut the front of the body away up to the crosshair, so that 3D shows what lies in the lungs. Returns if it changed. */
  #cut() {
    const { niivue } = this
    if (!this.isOpen || !(this.view === "3d" || (this.view === "all" && this.has3dBeside))) return false
    const depth = niivue.scene.crosshairPos[1] - 0.5
    const [before] = niivue.scene.clipPlaneDepthAziElevs[0] ?? [2]
    if (Math.abs(before - depth) < 1e-6) return false
    const { still } = this
    this.still = true // the caller draws
    niivue.setClipPlane([depth, FRONT, 0])
    this.still = still
    return true
  }

  #project([x, y, z], tile) {
    const { niivue } = this
    const [left, top, width, height] = tile.leftTopWidthHeight
    const [matrix] = niivue.calculateMvpMatrix(null, tile.leftTopWidthHeight, niivue.scene.renderAzimuth, niivue.scene.renderElevation)
    const at = (p) => {
      const [cx, cy, , cw] = [0, 1, 2, 3].map((row) => matrix[row] * p[0] + matrix[4 + row] * p[1] + matrix[8 + row] * p[2] + matrix[12 + row])
      return { x: left + ((cx / cw + 1) / 2) * width, y: top + ((1 - cy / cw) / 2) * height }
    }
    const middle = at([x, y, z])
    const beside = [at([x + 1, y, z]), at([x, y + 1, z]), at([x, y, z + 1])]
    const perMm = Math.max(...beside.map((p) => Math.hypot(p.x - middle.x, p.y - middle.y)))
    return { ...middle, perMm }
  }

  #listenToRuler() {
    const { overlay } = this
    const under = (event) => {
      const box = overlay.getBoundingClientRect()
      const [x, y] = [(event.clientX - box.left) * this.#scale(), (event.clientY - box.top) * this.#scale()]
      return underPixel(this.niivue.screenSlices, x, y)
    }
    overlay.addEventListener("pointerdown", (event) => {
      const start = this.isOpen ? under(event) : null
      if (!start) return
      overlay.setPointerCapture(event.pointerId)
      this.line = { plane: start.plane, from: start.ras, to: start.ras }
      this.drawRings()
    })
    overlay.addEventListener("pointermove", (event) => {
      if (!overlay.hasPointerCapture(event.pointerId)) return
      const end = under(event)
      if (end?.plane !== this.line.plane) return
      this.line.to = end.ras
      this.drawRings()
      this.onMeasure(lengthOf(this.line))
    })
  }
}

/** Whether the browser computes its graphics on the CPU. */
function isComputed(gl) {
  const named = gl.getExtension("WEBGL_debug_renderer_info")
  const renderer = gl.getParameter(named ? named.UNMASKED_RENDERER_WEBGL : gl.RENDERER)
  return /swiftshader|llvmpipe|software|basic render/i.test(renderer)
}
