// Bundles the parts of NiiVue that the review page uses into niivue.js.gz, and their licenses into LICENSE.txt.
//
//     npm install && npm run build      (in a copy of this folder: node_modules does not belong in the project)
//
// NiiVue reads some forty formats; the page loads one NIfTI and draws its own letters. The other readers, meshes'
// file formats, Zarr, the font, the material capture and the color maps are left out, which makes the file a fifth
// as large. The same versions give the same script; tests/review/test_bundle.py holds its checksum.
//
// NIIVUE_LICENSE.txt is from NiiVue's repository, since its package has no file of it.

import { build } from "esbuild"
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { gzipSync } from "node:zlib"

const MODULES = join(import.meta.dirname, "node_modules")
const SOURCE = join(MODULES, "@niivue/niivue/src")

const PIXEL = // a white picture of 1 x 1
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+ip1sAAAAASUVORK5CYII="
const GRAY = "export const gray = {R: [0, 255], G: [0, 255], B: [0, 255], A: [0, 128], I: [0, 255]}"
const LABELS = "export const $itksnap = {R: [0, 255], G: [0, 0], B: [0, 0], A: [0, 255], I: [0, 1]}"

// What stands in for each file of NiiVue that is left out.
const ABSENT = [
  [/^zarrita$/, "export const slice = 0, root = 0, open = 0, get = 0, FetchStore = class {}, registry = new Map()"],
  [/^@\/matcaps\//, `export default "${PIXEL}"`],
  [/^@\/fonts\/.*\.png$/, `export default "${PIXEL}"`],
  [/^@\/fonts\/.*\.json$/, "export default {atlas: {distanceRange: 1, size: 1, width: 1, height: 1}, glyphs: []}"],
  [/^@\/cmaps$/, `${GRAY}\n${LABELS}\nexport { $itksnap as $slicer3d }`],
  [/^@\/nvmesh-loaders$/, "export class NVMeshLoaders {}"],
  [/^@\/nvimage\/zarr/, "export class NVZarrHelper {}; export { NVZarrHelper as ZarrChunkClient, NVZarrHelper as ZarrChunkCache }"],
  [/^@\/nvimage\/ImageReaders\/(?!nii$)/, "export {}"],
]

const trimmed = {
  name: "trimmed",
  setup(pipeline) {
    pipeline.onResolve({ filter: /^(@\/|zarrita$)/ }, async ({ path, importer, ...rest }) => {
      const found = ABSENT.findIndex(([pattern]) => pattern.test(path))
      if (found >= 0) return { path, namespace: "absent", pluginData: ABSENT[found][1] }
      return pipeline.resolve(join(SOURCE, path.slice(2)), { kind: "import-statement", resolveDir: SOURCE })
    })
    pipeline.onLoad({ filter: /.*/, namespace: "absent" }, ({ pluginData }) => ({ contents: pluginData, loader: "js" }))
  },
}

const result = await build({
  stdin: {
    contents: `export { Niivue } from "${SOURCE}/niivue/index.ts"; export { NVImage } from "${SOURCE}/nvimage/index.ts"`,
    resolveDir: import.meta.dirname,
  },
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none", // LICENSE.txt holds them
  logOverride: { "import-is-undefined": "silent" },
  metafile: true,
  plugins: [trimmed],
  write: false,
})
const script = result.outputFiles[0].contents
writeFileSync(join(import.meta.dirname, "niivue.js.gz"), gzipSync(script, { level: 9 }))

const names = Object.keys(result.metafile.inputs)
  .map((path) => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1])
  .filter((name) => name)
const texts = [...new Set(names)].sort().map((name) => {
  const folder = join(MODULES, name)
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"))
  const own = readdirSync(folder).find((file) => /^licen[cs]e/i.test(file))
  const text = readFileSync(own ? join(folder, own) : join(import.meta.dirname, "NIIVUE_LICENSE.txt"), "utf8")
  if (!own && !existsSync(join(folder, "src/niivue"))) throw new Error(`${name}: no license file`)
  return `${name} ${version} (${license})\n\n${text.trim()}\n`
})
writeFileSync(join(import.meta.dirname, "LICENSE.txt"), texts.join(`\n${"-".repeat(80)}\n\n`))
console.log(`${script.length} bytes, packed ${gzipSync(script, { level: 9 }).length}; from ${[...new Set(names)].length} packages`)
