// Owns asking the server. Knows whether it still answers; it must not touch the page.

export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const listeners = new Set();

// Calls the listener with true when an answer comes, with false when the server is not there.
export function onReach(listener) {
  listeners.add(listener);
}

export async function ask(name, body = {}) {
  let response;
  try {
    response = await fetch(`api/${name}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch (error) {
    for (const listener of listeners) listener(false);
    throw new Refusal(0, "the server does not answer");
  }
  for (const listener of listeners) listener(true);
  const answer = await response.json();
  if (!response.ok) throw new Refusal(response.status, answer.error);
  return answer;
}
