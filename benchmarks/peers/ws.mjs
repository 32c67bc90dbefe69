// What most platforms run, done well: Node with the package ws, one Redis link, each client's send() called in turn.
//
// It stands for the usual hand-made service. Its envelope is stringified once per message, not once per client, and
// there is no compression: whoever writes such a service for the first time does worse.
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import { WebSocketServer } from 'ws'
import { announce, confirmation, connectToRedis, HOST, MAX_REQUEST, TLS } from './common.mjs'

const redis = await connectToRedis()
const audiences = new Map() // stream → { clients, confirmed }

function join(stream, client) {
  let audience = audiences.get(stream)
  if (audience === undefined) {
    const clients = new Set()
    const confirmed = redis.subscribe(stream, (text) => {
      const envelope = JSON.stringify({ stream, data: JSON.parse(text) })
      for (const each of clients) each.send(envelope)
    })
    audience = { clients, confirmed }
    audiences.set(stream, audience)
  }
  audience.clients.add(client)
  return audience.confirmed
}

function leave(stream, client) {
  const { clients } = audiences.get(stream)
  clients.delete(client)
  if (clients.size === 0) {
    audiences.delete(stream)
    redis.unsubscribe(stream)
  }
}

const http = TLS ? createSecureServer({ cert: readFileSync(TLS.certificate), key: readFileSync(TLS.key) }) : createServer()
const server = new WebSocketServer({ server: http, perMessageDeflate: false, maxPayload: MAX_REQUEST })
server.on('connection', (client) => {
  const streams = new Set()
  client.on('message', async (text) => {
    const request = JSON.parse(text)
    if (request.method !== 'SUBSCRIBE') return
    const fresh = request.params.filter((stream) => !streams.has(stream))
    for (const stream of fresh) streams.add(stream)
    await Promise.all(fresh.map((stream) => join(stream, client)))
    client.send(confirmation(request))
  })
  client.on('close', () => {
    for (const stream of streams) leave(stream, client)
  })
  client.on('error', () => client.terminate())
})
http.listen({ host: HOST, port: 0, backlog: 4096 }, () => announce(http.address().port))
