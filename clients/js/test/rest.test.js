import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MarketRest } from '../src/rest.js';

/** A server that answers so; what it was asked is in `asked`. */
function server(status, body) {
  const asked = [];
  const fetch = async (url, { headers }) => {
    asked.push([String(url), headers?.Authorization]);
    return new Response(typeof body === 'string' ? body : JSON.stringify(body), { status });
  };
  return { asked, fetch };
}

describe('questions about what was', () => {
  test('candles have names, and prices stay strings', async () => {
    const { asked, fetch } = server(200, [[60000, '10.50', '11.00', '10.25', '11.00', '42.5', 119999, '451.30', 17, '20.0', '212.45', '0']]);
    const rest = new MarketRest('wss://feed.example/base/?x=1', { fetch, token: async () => 'abc' });
    assert.deepEqual(await rest.klines('TATA_INR', '1m', { limit: 1, startTime: undefined }), [{
      openTime: 60000, open: '10.50', high: '11.00', low: '10.25', close: '11.00', volume: '42.5', closeTime: 119999,
      quoteVolume: '451.30', trades: 17, takerVolume: '20.0', takerQuoteVolume: '212.45',
    }]);
    assert.deepEqual(asked, [['https://feed.example/base/api/v3/klines?symbol=TATA_INR&interval=1m&limit=1', 'Bearer abc']]);
  });

  test('trades and books are as they are answered', async () => {
    const { asked, fetch } = server(200, []);
    const rest = new MarketRest('http://feed.example', { fetch });
    assert.deepEqual([await rest.trades('A'), await rest.depth('A', { limit: 5 })], [[], []]);
    assert.deepEqual(asked, [
      ['http://feed.example/api/v3/trades?symbol=A', undefined],
      ['http://feed.example/api/v3/depth?symbol=A&limit=5', undefined],
    ]);
  });

  test('markets have names, and the steps that are declared', async () => {
    const filters = [{ filterType: 'PRICE_FILTER', tickSize: '0.05' }, { filterType: 'LOT_SIZE', stepSize: '1' }];
    const symbols = [{ symbol: 'A_INR', baseAsset: 'A', quoteAsset: 'INR', filters }, { symbol: 'B_INR', baseAsset: 'B', quoteAsset: 'INR', filters: [] }];
    const { asked, fetch } = server(200, { symbols });
    assert.deepEqual(await new MarketRest('http://feed.example', { fetch }).markets(), [
      { name: 'A_INR', base: 'A', quote: 'INR', priceStep: '0.05', quantityStep: '1' },
      { name: 'B_INR', base: 'B', quote: 'INR', priceStep: undefined, quantityStep: undefined },
    ]);
    assert.deepEqual(asked, [['http://feed.example/api/v3/exchangeInfo', undefined]]);
  });

  test('the time is a number', async () => {
    const { asked, fetch } = server(200, { serverTime: 1790000000000 });
    assert.equal(await new MarketRest('http://feed.example', { fetch }).time(), 1790000000000);
    assert.deepEqual(asked, [['http://feed.example/api/v3/time', undefined]]);
  });

  test('what is refused is final, or may be had later', async () => {
    for (const [status, final] of [[400, true], [401, true], [403, true], [429, false], [500, false], [503, false]]) {
      const rest = new MarketRest('http://feed.example', server(status, { code: -1, msg: 'why' }));
      await assert.rejects(rest.trades('A'), { kind: 'refused', code: -1, message: 'why', final }, String(status));
    }
    const renews = new MarketRest('http://feed.example', { ...server(401, {}), token: () => 'old' });
    await assert.rejects(renews.trades('A'), { kind: 'refused', final: false, message: 'trades: 401' });
  });

  test('who cannot be reached, or answers what is not JSON, may be better later', async () => {
    const fetch = () => Promise.reject(new TypeError('fetch failed'));
    await assert.rejects(new MarketRest('http://feed.example', { fetch }).trades('A'), { kind: 'not-open', final: false });
    await assert.rejects(new MarketRest('http://feed.example', server(502, '<html>')).trades('A'), { kind: 'not-open' });
    assert.throws(() => new MarketRest('ftp://feed.example'), /url: expected http: or https:, not ftp:/);
  });
});
