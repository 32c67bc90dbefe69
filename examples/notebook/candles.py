# A notebook as a plain file: Jupyter, VS Code and PyCharm run it cell by cell, and so does `python candles.py`.

# %% [markdown]
# # The last hours of a market
# Candles of a minute, from the daemon into a table of pandas, and into a picture.

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from marketfeed_client.frames import data_frame
from marketfeed_client.past import klines

ADDRESS = sys.argv[1] if "://" in sys.argv[-1] else "http://localhost:8080"  # a notebook has arguments of its own
MARKET = "TATA_INR"
PICTURE = Path(f"{MARKET}.png")

# %% As many as there are of the last three hours. Prices come as text, and are numbers only from here on.
candles = klines(ADDRESS, MARKET, "1m", limit=180)
table = data_frame(candles, numbers="float").set_index("open_time")
table[["open", "high", "low", "close", "volume", "trades"]].tail()

# %% What they say: how much each minute moved, and the average price by volume.
table["change"] = table["close"].pct_change()
average = table["quote_volume"].sum() / table["volume"].sum()
print(f"{MARKET}: {len(table)} minutes, last {table['close'].iloc[-1]:.2f}, on average {average:.2f},")
print(f"{table['trades'].sum()} trades, a minute moves by {table['change'].std():.4%}")

# %% The picture: candles above, volume below.
figure, (prices, volumes) = plt.subplots(2, sharex=True, height_ratios=[3, 1], figsize=(12, 7), layout="constrained")
colours = [
    "tab:green" if close >= open_ else "tab:red" for open_, close in zip(table["open"], table["close"], strict=True)
]
width = 0.8 / (24 * 60)  # a day is 1
prices.vlines(table.index, table["low"], table["high"], colors=colours, linewidth=1)
prices.bar(table.index, table["close"] - table["open"], width, table["open"], color=colours)
prices.use_sticky_edges = False  # or the highest candle would touch the frame
prices.axhline(average, color="tab:blue", linestyle="--", linewidth=1, label="average by volume")
prices.legend()
prices.set_title(MARKET)
volumes.bar(table.index, table["volume"], width, color=colours)
volumes.set_ylabel("volume")
figure.savefig(PICTURE)
print(f"the picture is {PICTURE}")
