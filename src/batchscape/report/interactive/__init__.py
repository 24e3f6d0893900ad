"""The interactive counterparts of the report's figures: values to hover over, and parts to switch on and off.

They are drawn by plotly.js in the reader's browser from the tables that the static figures are drawn from. The page
works without them: without JavaScript, in print and on a phone it shows the static figures.
"""
