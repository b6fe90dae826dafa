"""Data: reading images losslessly, dataset layouts, splits, and the demo's photographs."""
