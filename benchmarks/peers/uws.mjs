// The fastest that can be had ready-made: uWebSockets.js, a server in C++, with its own topic tree for the fan-out.
//
// It stands for what is possible. The engine's bytes are spliced into the envelope, and nothing is validated, merged,
// kept or resumed; a client that does not keep up is cut off by the library.
import uWS from 'uwebsockets'
import { announce, confirmation, connectToRedis, HOST, MAX_REQUEST, TLS } from './common.mjs'

const redis = await connectToRedis()
const confirmed = new Map() // stream → the promise of its subscription; none is ever given up
const app = TLS ? uWS.SSLApp({ key_file_name: TLS.key, cert_file_name: TLS.certificate }) : uWS.App()

function want(stream) {
  if (!confirmed.has(stream)) {
    const head = `{"stream":${JSON.stringify(stream)},"data":`
    confirmed.set(stream, redis.subscribe(stream, (text) => app.publish(stream, `${head}${text}}`)))
  }
  return confirmed.get(stream)
}

app.ws('/*', {
  compression: uWS.DISABLED,
  maxPayloadLength: MAX_REQUEST,
  maxBackpressure: 8 * 1024 * 1024,
  idleTimeout: 120,
  open: (client) => {
    client.getUserData().isOpen = true
  },
  message: async (client, bytes) => {
    const request = JSON.parse(Buffer.from(bytes).toString())
    if (request.method !== 'SUBSCRIBE') return
    for (const stream of request.params) client.subscribe(stream)
    await Promise.all(request.params.map(want))
    if (client.getUserData().isOpen) client.send(confirmation(request))
  },
  close: (client) => {
    client.getUserData().isOpen = false
  },
})
app.listen(HOST, 0, (listening) => announce(uWS.us_socket_local_port(listening)))
