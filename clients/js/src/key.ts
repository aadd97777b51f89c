/** A key that no two publications share: 22 letters and digits, at random. */
export function randomKey(): string {
  const bytes = new Uint8Array(22);
  // Node 18 has no global crypto.
  if (globalThis.crypto) crypto.getRandomValues(bytes);
  else bytes.forEach((_, place) => (bytes[place] = Math.random() * 256));
  return Array.from(bytes, (byte) => (byte % 36).toString(36)).join('');
}
