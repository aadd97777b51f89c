/** Whether a name is a pattern, or a part of one a wildcard. */
export const isPattern = (name: string): boolean => /[*>]/.test(name);

/**
 * Whether a topic, or a pattern (`*` for one part, a last `>` for one part or more), covers a
 * topic.
 */
export function topicMatches(pattern: string, topic: string): boolean {
  const wanted = pattern.split('.');
  const given = topic.split('.');
  return (
    !(topic[0] === '$' && isPattern(pattern[0]!)) &&
    (given.length === wanted.length || (given.length > wanted.length && wanted.at(-1) === '>')) &&
    wanted.every((part, place) => isPattern(part) || part === given[place])
  );
}
