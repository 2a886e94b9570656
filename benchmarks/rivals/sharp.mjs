// sharp as its documentation shows it: one instance per photograph, a clone per output, a few
// photographs at a time. Reads a JSON object from standard input, see __init__.py.
import { mkdir } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { createRequire } from 'node:module';

// From the folder it was installed into, which is not this one.
const sharp = createRequire(join(process.cwd(), 'package.json'))('sharp');

const work = JSON.parse(readFileSync(0, 'utf8'));

async function makeVariants(path) {
  const folder = join(work.out, basename(path));
  await mkdir(folder, { recursive: true });
  const photograph = sharp(path).autoOrient();
  const outputs = [];
  for (const [name, { width, height, cover }] of Object.entries(work.sizes)) {
    const options = { fit: cover ? 'cover' : 'inside', withoutEnlargement: !cover };
    const resized = () => photograph.clone().resize(width, height, options);
    const { webp, jpeg, avif } = work.formats;
    if (webp) outputs.push(resized().webp({ quality: webp, effort: 4 }).toFile(join(folder, `${name}.webp`)));
    if (jpeg) outputs.push(resized().jpeg({ quality: jpeg, progressive: work.progressive }).toFile(join(folder, `${name}.jpg`)));
    if (avif) outputs.push(resized().avif({ quality: avif }).toFile(join(folder, `${name}.avif`)));
  }
  await Promise.all(outputs);
}

const started = performance.now();
const waiting = work.files.values();
// Takers of one list: as many photographs at a time as there are cores.
const taker = async () => {
  for (const path of waiting) await makeVariants(path);
};
await Promise.all(Array.from({ length: work.cores }, taker));
console.log(JSON.stringify({ seconds: (performance.now() - started) / 1000 }));
