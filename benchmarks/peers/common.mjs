// What both peers share: where they are told the Redis server and a certificate are, and how they tell their port.
import { createClient } from 'redis'

export const HOST = '127.0.0.1'
export const MAX_REQUEST = 65536 // bytes, as the daemon's --max-message

const { TLS_CERTIFICATE: certificate, TLS_KEY: key } = process.env
export const TLS = certificate && { certificate, key } // paths; undefined: clients connect in plain text

export async function connectToRedis() {
  const client = createClient({ socket: { path: process.env.REDIS_SOCKET } })
  return client.connect()
}

// The load generator waits for this before it publishes, so it is only sent when Redis has confirmed every stream.
export function confirmation(request) {
  return JSON.stringify({ result: null, id: request.id })
}

export function announce(port) {
  console.log(`listening on port ${port}`)
}
